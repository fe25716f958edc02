import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import packageJson from '../../package.json' with { type: 'json' }
import { readCodeBlocks } from '../support/markdown.ts'

const root = new URL('../../', import.meta.url)

/** Code that says what a user is, where a registered type would know. */
const CAST = /\buser\)?!? as (?!const\b)|\bas (?:\w+\.)?User\b|\bas unknown as\b/i

function filesBelow(folder: string, end: string): string[] {
  return readdirSync(new URL(folder, root), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith(end) && !name.includes('node_modules'))
    .map((name) => `${folder}/${name}`)
}

const read = (path: string) => readFileSync(new URL(path, root), 'utf8')

/** The code of a program or of a guide, without comments, in which a user may be anything. */
function codeOf(path: string): string[] {
  const text = path.endsWith('.md')
    ? readCodeBlocks(read(path))
        .filter(({ language }) => language === 'ts' || language === 'js')
        .map((block) => block.text)
        .join('\n')
    : read(path)
  return text
    .replaceAll(/\/\*.*?\*\/|(?<!:)\/\/.*$/gms, (comment) => comment.replaceAll(/[^\n]/g, ''))
    .split('\n')
}

describe('a reader who copies code', () => {
  const paths = ['README.md', ...filesBelow('docs', '.md'), ...filesBelow('examples', '.ts')]

  it('copies no cast of a user', () => {
    expect(paths.length).toBeGreaterThan(80)
    const casts = paths.flatMap((path) =>
      codeOf(path)
        .filter((line) => !line.startsWith('import ') && CAST.test(line))
        .map((line) => `${path}: ${line.trim()}`),
    )
    expect(casts).toEqual([])
  })

  it.each([
    'res.json({ user: (req.user as User).username })',
    'const user = req.user as { id: string } | undefined',
    'done(null, (user as Express.User).id)',
    'const user = req.user! as Member',
    'const member = req.body as unknown as Member',
  ])('would be told of %s', (line) => {
    expect(line).toMatch(CAST)
  })

  it('finds the examples with a tsconfig of their own in the type check', () => {
    const configs = ['examples', 'test/golden'].flatMap((folder) =>
      filesBelow(folder, 'tsconfig.json').map((path) => path.replace('/tsconfig.json', '')),
    )
    expect(configs.length).toBeGreaterThan(1)
    for (const script of ['typecheck:6', 'typecheck:7'] as const) {
      const checked = [...packageJson.scripts[script].matchAll(/ -p (\S+)/g)].map(([, folder]) => folder)
      expect(checked.sort()).toEqual(configs.sort())
    }
  })
})
