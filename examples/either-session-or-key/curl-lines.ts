import type { CurlLine } from '../express/curl-lines.ts'
import { DEMO_PASSWORDS } from '../express/users.ts'

/** Commands to paste into a shell, from top to bottom. The key is Grace's, the login Ada's. */
export function curlLines(url: string, key: string): CurlLine[] {
  const withKey = `-H 'X-Api-Key: ${key}'`
  const withCookie = '-b cookies.txt'
  const json = "-H 'Content-Type: application/json'"
  // What a browser sends from our own page.
  const fromPage = `-H 'Origin: ${url}'`
  const login = JSON.stringify({ username: 'ada', password: DEMO_PASSWORDS.ada })
  const addProject = `${json} -d '{"name":"loom"}'`
  return [
    {
      title: 'A key adds a project',
      expect: '201',
      command: `curl -i ${url}/projects ${withKey} ${addProject}`,
    },
    {
      title: 'Log in, as from our own page',
      expect: '200',
      command: `curl -i -c cookies.txt ${url}/login ${fromPage} ${json} -d '${login}'`,
    },
    { title: 'The cookie alone reads', expect: '200', command: `curl -i ${withCookie} ${url}/projects` },
    {
      title: 'The cookie alone changes nothing',
      expect: '403',
      command: `curl -i ${withCookie} ${url}/projects ${addProject}`,
    },
    {
      title: 'The cookie, from our own page',
      expect: '201',
      command: `curl -i ${withCookie} ${url}/projects ${fromPage} ${addProject}`,
    },
    {
      title: 'The cookie, from another page',
      expect: '403',
      command: `curl -i ${withCookie} ${url}/projects -H 'Origin: http://evil.example' ${addProject}`,
    },
    {
      title: 'Junk for a key does not skip that check',
      expect: '401 invalid_key',
      command: `curl -i ${withCookie} ${url}/projects -H 'X-Api-Key: junk' ${addProject}`,
    },
    {
      title: 'With both, the key decides',
      expect: '200',
      command: `curl -i ${withCookie} ${url}/me ${withKey}`,
    },
    {
      title: 'Settings take no key, whatever cookie comes with it',
      expect: '403 session_required',
      command: `curl -i ${withCookie} ${url}/settings ${withKey}`,
    },
    {
      title: 'Settings, from our own page',
      expect: '200',
      command: `curl -i -X PUT ${withCookie} ${url}/settings ${fromPage} ${json} -d '{"theme":"dark"}'`,
    },
    {
      title: 'Issue a key of your own',
      expect: '201',
      command: `curl -i ${withCookie} ${url}/keys ${fromPage} ${json} -d '{"name":"my key"}'`,
    },
  ]
}
