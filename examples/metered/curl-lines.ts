import type { CurlLine } from '../express/curl-lines.ts'

/** Commands to paste into a shell, from top to bottom. */
export function curlLines(url: string, free: string, pro: string): CurlLine[] {
  const ask = (key: string, prompt: string) =>
    `curl -i ${url}/chat -H 'X-Api-Key: ${key}' -H 'Content-Type: text/plain' -d '${prompt}'`
  const long = 'one two three four five six seven eight nine ten eleven twelve thirteen fourteen'
  return [
    { title: 'A short reply', expect: '200', command: ask(free, 'one two') },
    { title: 'What is left', expect: '200', command: `curl -i ${url}/usage -H 'X-Api-Key: ${free}'` },
    {
      title: 'A reply that costs more than was reserved',
      expect: '200',
      command: ask(free, `${long} ${long}`),
    },
    { title: 'Too few tokens are left', expect: '429 rate_limited', command: ask(free, 'one') },
    { title: 'The other plan', expect: '200', command: ask(pro, 'one two') },
    { title: 'Without a key', expect: '401 missing_key', command: `curl -i ${url}/usage` },
  ]
}
