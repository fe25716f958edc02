import { STATUS_CODES } from 'node:http'
import { expect } from 'vitest'
import { type CurlAnswer, fetcher } from './curl.ts'
import type { CodeBlock } from './markdown.ts'

/**
 * Sends the `curl` commands of a page to this port, in order, and requires each answer to be the one that the page shows
 * after it.
 *
 * @param words what stands for the words of the page, such as a key for `$KEY`
 */
export async function expectShownAnswers(
  blocks: readonly CodeBlock[],
  port: number,
  words: Readonly<Record<string, string>> = {},
): Promise<void> {
  const run = fetcher()
  const shown = blocks.filter(({ language }) => language === 'sh' || language === 'http')
  expect(shown.length).toBeGreaterThan(1)
  for (let i = 0; i < shown.length; i += 2) {
    const [command, answer] = shown.slice(i, i + 2) as [CodeBlock, CodeBlock]
    expect([command.language, answer?.language], `line ${command.line}`).toEqual(['sh', 'http'])
    expect(command.text).toContain('http://localhost:3000/')
    let text = command.text.replace('localhost:3000', `localhost:${port}`).replaceAll(' \\\n', ' ')
    for (const [word, value] of Object.entries(words)) text = text.replaceAll(word, value)
    const [answered] = await run(text)
    expectShown(answer, answered as CurlAnswer)
  }
}

/** Requires the status line, the header fields that are shown, and the body to be those of the answer. */
export function expectShown(shown: CodeBlock, answer: CurlAnswer): void {
  const where = `line ${shown.line}`
  const [head = '', body = ''] = shown.text.split('\n\n')
  const [statusLine = '', ...lines] = head.trimEnd().split('\n')
  const headers = lines.map((line) => /^([^:]+): (.+)$/.exec(line)?.slice(1) ?? [line])
  expect(statusLine, where).toBe(`HTTP/1.1 ${answer.status} ${STATUS_CODES[answer.status]}`)
  expect(headers, where).toEqual(headers.map(([name = '']) => [name, answer.headers[name.toLowerCase()]]))
  expect(onOneLine(body), where).toBe(answer.body)
}

/** A page may break the JSON of a body into lines. */
function onOneLine(body: string): string {
  return body.startsWith('{') ? JSON.stringify(JSON.parse(body)) : body.trimEnd()
}
