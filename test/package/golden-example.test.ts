import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { fetcher } from '../support/curl.ts'
import { frozenFile, frozenReleases } from '../support/golden/releases.ts'
import { type PackedPackage, packPackage } from '../support/packed-package.ts'
import { readPrintedLines, summaryOf } from '../support/printed-lines.ts'
import type { Program } from '../support/program.ts'

/** What the examples import, beside the package itself. */
const PACKAGES = ['express', 'express-session', 'passport', 'passport-local', 'libsql', 'bcrypt', 'tsx']

const examples = frozenReleases().filter((release) => frozenFile(release, 'example'))

let packed: PackedPackage

beforeAll(() => {
  expect(inject('buildFailure')).toBe('')
  packed = packPackage()
})

afterAll(() => packed?.remove())

describe.each(examples)('the example of release %s, with the new build', (release) => {
  let program: Program
  let printed: string

  beforeAll(async () => {
    const consumer = packed.createConsumer(PACKAGES)
    consumer.write('package.json', JSON.stringify({ type: 'module' }))
    const folder = frozenFile(release, 'example') as string
    for (const file of readdirSync(folder)) consumer.write(file, readFileSync(join(folder, file), 'utf8'))
    program = consumer.start('server.ts', { PORT: '0' })
    printed = await program.waitFor(/n=\[1-8\].*\n/)
  })

  afterAll(async () => {
    program?.signal('SIGTERM')
    await program?.ended()
  })

  it('answers as its printed lines promise, and issues a key that works', async () => {
    const run = fetcher()
    const lines = readPrintedLines(printed)
    expect(lines.length).toBeGreaterThan(5)
    const issued: string[] = []
    for (const { title, promised, command } of lines) {
      const answers = await run(command)
      expect(`${title} → ${summaryOf(answers)}`).toBe(`${title} → ${promised}`)
      if (answers[0]?.status === 201) issued.push(JSON.parse(answers[0].body).key)
    }
    expect(issued).toHaveLength(1)
    const url = /http:\S+(?=\/projects)/.exec(printed)?.[0]
    const [answer] = await run(`curl -i ${url}/projects -H 'X-Api-Key: ${issued[0]}'`)
    expect(answer?.status).toBe(200)
    expect(program.stderr).toBe('')
  })
})
