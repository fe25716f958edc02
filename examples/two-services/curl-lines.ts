import type { CurlLine } from '../express/curl-lines.ts'

export interface Demo {
  /** Where the auth service has its keys, and where the consumer listens. */
  readonly auth: string
  readonly consumer: string
  readonly adminToken: string
  /** The key to use, and its id. */
  readonly key: string
  readonly id: string
}

/** Commands to paste into a shell, from top to bottom. */
export function curlLines({ auth, consumer, adminToken, key, id }: Demo): CurlLine[] {
  const withKey = `-H 'X-Api-Key: ${key}'`
  const json = "-H 'Content-Type: application/json'"
  return [
    {
      title: 'With the key, at the consumer',
      expect: '200',
      command: `curl -i ${consumer}/projects ${withKey}`,
    },
    { title: 'Without it', expect: '401 missing_key', command: `curl -i ${consumer}/projects` },
    {
      title: 'An unknown key',
      expect: '401 invalid_key',
      command: `curl -i ${consumer}/projects -H 'X-Api-Key: ${key}x'`,
    },
    {
      title: 'The key may read, not write',
      expect: '403 insufficient_permissions',
      command: `curl -i -X DELETE ${consumer}/projects/loom ${withKey}`,
    },
    { title: 'A report counts', expect: '201', command: `curl -i -X POST ${consumer}/reports ${withKey}` },
    {
      title: 'Three a minute are allowed',
      expect: '201, then 429',
      command: `curl -s -o /dev/null -w '%{http_code}\\n' -X POST '${consumer}/reports?n=[1-4]' ${withKey}`,
    },
    {
      title: 'The key may not verify others',
      expect: '403 insufficient_permissions',
      command: `curl -i -X POST ${auth}/verify ${withKey} ${json} -d '${JSON.stringify({ key })}'`,
    },
    {
      title: 'Revoke it at the auth service',
      expect: '200',
      command: `curl -i -X POST ${auth}/${id}/revoke -H 'Authorization: Bearer ${adminToken}' ${json} -d '{}'`,
    },
    {
      title: 'A call that counts always asks',
      expect: '401 invalid_key',
      command: `curl -i -X POST ${consumer}/reports ${withKey}`,
    },
    {
      title: 'Now the consumer knows too',
      expect: '401 invalid_key',
      command: `curl -i ${consumer}/projects ${withKey}`,
    },
  ]
}
