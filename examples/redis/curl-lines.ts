export interface CurlLine {
  /** What the line shows. */
  readonly title: string
  /** The status of the response, or of the responses in order. */
  readonly expect: string
  readonly command: string
}

export interface Demo {
  /** Where the two processes listen. */
  readonly a: string
  readonly b: string
  readonly adminToken: string
  /** The keys to use, and the id of the first, which is to be revoked. */
  readonly keys: readonly [string, string]
  readonly id: string
}

/** Commands to paste into a shell, from top to bottom. */
export function curlLines({ a, b, adminToken, keys: [first, second], id }: Demo): CurlLine[] {
  const withFirst = `-H 'X-Api-Key: ${first}'`
  const withSecond = `-H 'X-Api-Key: ${second}'`
  return [
    { title: 'A key at A', expect: '200', command: `curl -i ${a}/projects ${withFirst}` },
    {
      title: 'The same key at B, which keeps counting',
      expect: '200',
      command: `curl -i ${b}/projects ${withFirst}`,
    },
    {
      title: 'Revoke it at A',
      expect: '200',
      command: `curl -i -X POST ${a}/keys/${id}/revoke -H 'Authorization: Bearer ${adminToken}'`,
    },
    {
      title: 'At B, the very next request',
      expect: '401 invalid_key',
      command: `curl -i ${b}/projects ${withFirst}`,
    },
    {
      title: 'Another key, used up at A',
      expect: '200, then 429',
      command: `curl -s -o /dev/null -w '%{http_code}\\n' '${a}/projects?n=[1-7]' ${withSecond}`,
    },
    {
      title: 'It is used up at B too',
      expect: '429 rate_limited',
      command: `curl -i ${b}/projects ${withSecond}`,
    },
  ]
}
