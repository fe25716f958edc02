import type { CurlLine } from '../express/curl-lines.ts'
import { DEMO_LOGIN } from './users.ts'

/** Commands to paste into a shell, from top to bottom. */
export function curlLines(url: string, key: string): CurlLine[] {
  const withKey = `-H 'X-Api-Key: ${key}'`
  const json = "-H 'Content-Type: application/json'"
  return [
    { title: 'With the key', expect: '200', command: `curl -i ${url}/projects ${withKey}` },
    { title: 'Without it', expect: '401 missing_key', command: `curl -i ${url}/projects` },
    {
      title: 'The key may read, not write',
      expect: '403 insufficient_permissions',
      command: `curl -i ${url}/projects ${withKey} ${json} -d '{"name":"loom"}'`,
    },
    { title: 'A route for any good key', expect: '200', command: `curl -i ${url}/key ${withKey}` },
    { title: 'A route that takes either', expect: '200', command: `curl -i ${url}/me ${withKey}` },
    { title: 'A public route', expect: '200', command: `curl -i ${url}/health` },
    {
      title: 'Settings are for sessions: no key gets in',
      expect: '403 session_required',
      command: `curl -i ${url}/settings ${withKey}`,
    },
    {
      title: 'Log in',
      expect: '200',
      command: `curl -i -c cookies.txt ${url}/login ${json} -d '${JSON.stringify(DEMO_LOGIN)}'`,
    },
    { title: 'Settings, with the session', expect: '200', command: `curl -i -b cookies.txt ${url}/settings` },
    { title: 'The one that takes either', expect: '200', command: `curl -i -b cookies.txt ${url}/me` },
    {
      title: 'The keys of whoever is logged in',
      expect: '200',
      command: `curl -i -b cookies.txt ${url}/api-keys`,
    },
    {
      title: 'A key for them',
      expect: '201',
      command: `curl -i -b cookies.txt ${url}/api-keys ${json} -d '{"name":"CI","permissions":{"projects":["read"]}}'`,
    },
    {
      title: 'Too many at once',
      expect: '200, then 429',
      command: `curl -s -o /dev/null -w '%{http_code}\\n' '${url}/projects?n=[1-8]' ${withKey}`,
    },
  ]
}
