import type { CurlLine } from '../express/curl-lines.ts'
import { DEMO_PASSWORDS } from './users.ts'

/** Commands to paste into a shell, from top to bottom. The key is Ada's, its id is `id`. */
export function curlLines(url: string, key: string, id: string): CurlLine[] {
  const keys = `${url}/api-keys`
  const withKey = `-H 'X-Api-Key: ${key}'`
  const json = "-H 'Content-Type: application/json'"
  const [asAda, asGrace, asHedy] = ['-b ada.txt', '-b grace.txt', '-b hedy.txt']
  const body = (value: object) => `-d '${JSON.stringify(value)}'`
  const logIn = (username: keyof typeof DEMO_PASSWORDS) => {
    const login = body({ username, password: DEMO_PASSWORDS[username] })
    return `curl -i -c ${username}.txt ${url}/login ${json} ${login}`
  }
  const issue = (asked: object) => `curl -i ${asAda} ${keys} ${json} ${body(asked)}`
  const issueOnce = `${issue({ name: 'laptop', permissions: { notes: ['read'] } })} -H 'Idempotency-Key: laptop'`
  const rename = (name: string) =>
    `curl -i -X PATCH ${asAda} ${keys}/${id} ${json} -H 'If-Match: "1"' ${body({ name })}`
  return [
    { title: 'A key of Ada’s reads her notes', expect: '200', command: `curl -i ${url}/notes ${withKey}` },
    { title: 'A key manages no keys', expect: '403 session_required', command: `curl -i ${keys} ${withKey}` },
    { title: 'It can read itself', expect: '200', command: `curl -i ${keys}/self ${withKey}` },
    { title: 'Nobody is logged in', expect: '401 authentication_required', command: `curl -i ${keys}` },
    { title: 'Log in as Ada', expect: '200', command: logIn('ada') },
    { title: 'List your keys', expect: '200', command: `curl -i ${asAda} ${keys}` },
    { title: 'Issue one', expect: '201', command: issueOnce },
    { title: 'The same once more', expect: '409 already_done', command: issueOnce },
    {
      title: 'No key may close the account',
      expect: '403 permissions_exceeded',
      command: issue({ name: 'axe', permissions: { account: ['close'] } }),
    },
    {
      title: 'No key lasts longer than 90 days',
      expect: '403 ceiling_exceeded',
      command: issue({ name: 'old', expiresAt: null }),
    },
    {
      title: 'Limits are not the user’s to set',
      expect: '403 field_not_allowed',
      command: issue({ name: 'fast', rateLimits: [] }),
    },
    {
      title: 'A form of another site',
      expect: '415 unsupported_media_type',
      command: `curl -i ${asAda} ${keys} -d 'name=forged'`,
    },
    {
      title: 'A script of another site',
      expect: '403 cross_site',
      command: `${issue({ name: 'forged' })} -H 'Sec-Fetch-Site: cross-site'`,
    },
    { title: 'Rename a key that has not changed', expect: '200', command: rename('old laptop') },
    { title: 'Now someone has changed it', expect: '412 precondition_failed', command: rename('lost') },
    {
      title: 'Rotate it; both work for an hour',
      expect: '201',
      command: `curl -i ${asAda} ${keys}/${id}/rotate ${json} ${body({ graceMs: 3_600_000 })}`,
    },
    { title: 'Log in as Grace', expect: '200', command: logIn('grace') },
    {
      title: 'Ada’s key is not hers',
      expect: '404 not_found',
      command: `curl -i -X POST ${asGrace} ${keys}/${id}/revoke ${json}`,
    },
    { title: 'Log in as Hedy, the administrator', expect: '200', command: logIn('hedy') },
    { title: 'List everybody’s keys', expect: '200', command: `curl -i ${asHedy} ${keys}` },
    {
      title: 'She gets no secret of a key with permissions',
      expect: '403 permissions_exceeded',
      command: `curl -i ${asHedy} ${keys}/${id}/rotate ${json} ${body({})}`,
    },
    {
      title: 'Revoke one',
      expect: '200',
      command: `curl -i ${asHedy} ${keys}/${id}/revoke ${json} ${body({ reason: 'found in a repository' })}`,
    },
    { title: 'It no longer works', expect: '401 invalid_key', command: `curl -i ${url}/notes ${withKey}` },
  ]
}
