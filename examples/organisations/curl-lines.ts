import type { CurlLine } from '../express/curl-lines.ts'
import { DEMO_PASSWORDS } from './people.ts'

/** Commands to paste into a shell, from top to bottom. The key is Acme's, issued by Grace. */
export function curlLines(url: string, key: string): CurlLine[] {
  const keys = `${url}/api-keys`
  const withKey = `-H 'X-Api-Key: ${key}'`
  const json = "-H 'Content-Type: application/json'"
  const [asGrace, asAda, asMargaret] = ['-b grace.txt', '-b ada.txt', '-b margaret.txt']
  const body = (value: object) => `-d '${JSON.stringify(value)}'`
  const logIn = (username: keyof typeof DEMO_PASSWORDS) => {
    const login = body({ username, password: DEMO_PASSWORDS[username] })
    return `curl -i -c ${username}.txt ${url}/login ${json} ${login}`
  }
  const ofGlobex = { owner: { type: 'organization', id: 'globex' } }
  const read = `curl -i ${url}/reports ${withKey}`
  const write = `curl -i ${url}/reports ${withKey} ${json} ${body({ title: 'anvils, second quarter' })}`
  const acme = `curl -i -X PUT ${url}/organisations/acme`
  return [
    { title: 'A key of Acme’s writes a report', expect: '201', command: write },
    { title: 'Log in as Grace, of Acme and Globex', expect: '200', command: logIn('grace') },
    { title: 'List the keys of both', expect: '200', command: `curl -i ${asGrace} ${keys}` },
    {
      title: 'A new key has one owner',
      expect: '400 invalid_request',
      command: `curl -i ${asGrace} ${keys} ${json} ${body({ name: 'CI' })}`,
    },
    {
      title: 'Issue one for Globex',
      expect: '201',
      command: `curl -i ${asGrace} ${keys} ${json} ${body({ ...ofGlobex, name: 'CI', permissions: { reports: ['read'] } })}`,
    },
    {
      title: 'At Acme she is a member, and revokes nothing',
      expect: '403 not_permitted',
      command: `curl -i ${asGrace} ${keys}/revoke ${json} ${body({ owner: { type: 'organization', id: 'acme' } })}`,
    },
    { title: 'Log in as Ada, Acme’s owner', expect: '200', command: logIn('ada') },
    { title: 'The keys Grace issued', expect: '200', command: `curl -i ${asAda} '${keys}?createdBy=u_3'` },
    {
      title: 'Globex is not hers',
      expect: '403 not_permitted',
      command: `curl -i ${asAda} '${keys}?ownerType=organization&ownerId=globex'`,
    },
    { title: 'Pay less', expect: '200', command: `${acme}/plan ${asAda} ${json} ${body({ plan: 'free' })}` },
    { title: 'The key can no longer write', expect: '403 insufficient_permissions', command: write },
    { title: 'It still reads', expect: '200', command: read },
    { title: 'Log in as Margaret, of the staff', expect: '200', command: logIn('margaret') },
    {
      title: 'Suspend Acme',
      expect: '200',
      command: `${acme}/suspension ${asMargaret} ${json} ${body({ suspended: true })}`,
    },
    { title: 'No key of theirs works', expect: '401 invalid_key', command: read },
    {
      title: 'Lift the suspension',
      expect: '200',
      command: `${acme}/suspension ${asMargaret} ${json} ${body({ suspended: false })}`,
    },
    {
      title: 'Grace leaves',
      expect: '204',
      command: `curl -i -X DELETE ${url}/people/u_3 ${asMargaret}`,
    },
    {
      title: 'She no longer manages keys',
      expect: '401 authentication_required',
      command: `curl -i ${asGrace} ${keys}`,
    },
    { title: 'The key she issued still works', expect: '200', command: read },
    {
      title: 'Revoke it all, at Acme and Globex',
      expect: '200',
      command: `curl -i ${asMargaret} ${keys}/revoke ${json} ${body({ createdBy: 'u_3', reason: 'has left' })}`,
    },
    { title: 'It no longer works', expect: '401 invalid_key', command: read },
  ]
}
