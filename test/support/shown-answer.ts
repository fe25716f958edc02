import { STATUS_CODES } from 'node:http'
import { expect } from 'vitest'
import type { CurlAnswer } from './curl.ts'
import type { CodeBlock } from './markdown.ts'

/** Requires what a page shows to be in the answer: it may leave out header fields and members. Keys differ from run to run. */
export function expectAnswer(shown: CodeBlock, answer: CurlAnswer): void {
  const [head = '', body = ''] = shown.text.trimEnd().split('\n\n')
  const [statusLine = '', ...lines] = head.split('\n')
  const headers = lines.map((line) => /^([^:]+): (.+)$/.exec(line)?.slice(1) ?? [line])
  const where = `line ${shown.line}`
  expect(statusLine, where).toBe(`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`)
  expect(headers, where).toEqual(headers.map(([name = '']) => [name, answer.headers[name.toLowerCase()]]))
  if (body !== '') expect(masked(answer.body), where).toMatchObject(masked(body) as object)
}

function masked(json: string): unknown {
  return JSON.parse(json.replaceAll(/"acme_(?:…|\w{16}_\w{49})"/g, '"<key>"'))
}
