import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, onTestFinished } from 'vitest'
import type { CurlLine } from '../../examples/express/curl-lines.ts'
import { fetcher, hasCurl, shellIn } from './curl.ts'
import { readTable } from './markdown.ts'
import { readPrintedLines, summaryOf } from './printed-lines.ts'
import { startProgram } from './program.ts'

/** Holds the README of an example to the lines that its program prints. */
export function describeReadme(example: string, lines: readonly Pick<CurlLine, 'title' | 'expect'>[]): void {
  describe('its README', () => {
    const folder = new URL(`../../examples/${example}/`, import.meta.url)
    const readme = readFileSync(new URL('README.md', folder), 'utf8')

    it('tells what each printed line answers', () => {
      const told = readTable(readme, 'printed as').map(([title, expected]) => [title, expected])
      expect(told).toEqual(lines.map(({ title, expect }) => [title, expect]))
    })

    it('names files that exist', () => {
      const targets = [...readme.matchAll(/\]\(([^)]+)\)/g)].map(([, target]) => target as string)
      expect(targets.length).toBeGreaterThan(0)
      expect(targets.filter((target) => !existsSync(new URL(target, folder)))).toEqual([])
    })
  })
}

export interface PrintingProgram {
  /** How many lines it prints. */
  count: number
  /** What the last of them matches. */
  last: RegExp
  /** What it is told besides its port; asked once for each start. */
  env?: () => NodeJS.ProcessEnv
}

/** Runs the lines that `server.ts` of an example prints: in a shell where there is a curl, and otherwise their requests. */
export function itAnswersItsLines(example: string, { count, last, env }: PrintingProgram): void {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-example-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('answers the lines it prints as they promise', async () => {
    const program = startProgram([`examples/${example}/server.ts`], { PORT: '0', ...env?.() })
    onTestFinished(() => program.signal('SIGKILL'))
    const lines = readPrintedLines(await program.waitFor(last))
    const run = hasCurl ? shellIn(folder) : fetcher()
    const told: string[] = []
    for (const { title, command } of lines) told.push(`${title} → ${summaryOf(await run(command))}`)
    expect(told).toEqual(lines.map(({ title, promised }) => `${title} → ${promised}`))
    expect(told).toHaveLength(count)
    program.signal('SIGINT')
    expect(await program.ended()).toBe(0)
    expect(program.stderr).toBe('')
  })
}
