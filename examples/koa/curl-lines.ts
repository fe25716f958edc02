import type { CurlLine } from '../express/curl-lines.ts'
import { DEMO_PASSWORDS } from '../express/users.ts'

/** Commands to paste into a shell, from top to bottom. */
export function curlLines(url: string, key: string): CurlLine[] {
  const withKey = `-H 'X-Api-Key: ${key}'`
  const login = JSON.stringify({ username: 'ada', password: DEMO_PASSWORDS.ada })
  return [
    { title: 'Open to everybody', expect: '200', command: `curl -i ${url}/` },
    { title: 'With the key', expect: '200', command: `curl -i ${url}/projects ${withKey}` },
    { title: 'Without it', expect: '401 missing_key', command: `curl -i ${url}/projects` },
    {
      title: 'The key may read, not write',
      expect: '403 insufficient_permissions',
      command: `curl -i -X DELETE ${url}/projects/loom ${withKey}`,
    },
    { title: 'A route that takes either', expect: '200', command: `curl -i ${url}/me ${withKey}` },
    {
      title: 'Settings are for sessions: no key gets in',
      expect: '403 session_required',
      command: `curl -i ${url}/settings ${withKey}`,
    },
    {
      title: 'Log in',
      expect: '200',
      command: `curl -i -c cookies.txt ${url}/login -H 'Content-Type: application/json' -d '${login}'`,
    },
    { title: 'Settings, with the session', expect: '200', command: `curl -i -b cookies.txt ${url}/settings` },
    {
      title: 'A report spends three calls at once',
      expect: '201, then 429',
      command: `curl -s -o /dev/null -w '%{http_code}\\n' -X POST '${url}/reports?n=[1-4]' ${withKey}`,
    },
  ]
}
