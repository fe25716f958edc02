import { DEMO_PASSWORDS } from './users.ts'

export interface CurlLine {
  /** What the line shows. */
  readonly title: string
  /** The status of the response, or of the responses in order. */
  readonly expect: string
  readonly command: string
}

/** Commands to paste into a shell, from top to bottom. */
export function curlLines(url: string, key: string): CurlLine[] {
  const withKey = `-H 'X-Api-Key: ${key}'`
  const json = "-H 'Content-Type: application/json'"
  const login = JSON.stringify({ username: 'ada', password: DEMO_PASSWORDS.ada })
  return [
    { title: 'With the key', expect: '200', command: `curl -i ${url}/projects ${withKey}` },
    { title: 'Without it', expect: '401 missing_key', command: `curl -i ${url}/projects` },
    {
      title: 'The key may read, not write',
      expect: '403 insufficient_permissions',
      command: `curl -i ${url}/projects ${withKey} ${json} -d '{"name":"loom"}'`,
    },
    {
      title: 'A route that takes either',
      expect: '200',
      command: `curl -i ${url}/me ${withKey}`,
    },
    {
      title: 'Settings are for sessions: no key gets in',
      expect: '403 session_required',
      command: `curl -i ${url}/settings ${withKey}`,
    },
    {
      title: 'Log in',
      expect: '200',
      command: `curl -i -c cookies.txt ${url}/login ${json} -d '${login}'`,
    },
    { title: 'Settings, with the session', expect: '200', command: `curl -i -b cookies.txt ${url}/settings` },
    {
      title: 'Issue a key of your own',
      expect: '201',
      command: `curl -i -b cookies.txt ${url}/keys ${json} -d '{"name":"my key"}'`,
    },
    {
      title: 'Too many at once',
      expect: '200, then 429',
      command: `curl -s -o /dev/null -w '%{http_code}\\n' '${url}/projects?n=[1-8]' ${withKey}`,
    },
  ]
}
