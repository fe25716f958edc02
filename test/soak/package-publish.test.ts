import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../', import.meta.url))

let copy: string | undefined

afterEach(() => copy && rmSync(copy, { recursive: true, force: true }))

/** What the build needs, where no other test has an eye on `dist`. */
function createCopy(): string {
  const folder = mkdtempSync(join(tmpdir(), 'latchkey-publish-'))
  for (const path of [
    'lib',
    'sql',
    'package.json',
    'tsconfig.json',
    'tsdown.config.ts',
    'README.md',
    'CHANGELOG.md',
  ]) {
    cpSync(join(root, path), join(folder, path), { recursive: true })
  }
  rmSync(join(folder, 'sql/package.json'), { force: true })
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'), 'junction')
  return folder
}

it('is what the sources say, whatever was built before', () => {
  copy = createCopy()
  mkdirSync(join(copy, 'dist'))
  writeFileSync(join(copy, 'dist/index.mjs'), 'stale')
  writeFileSync(join(copy, 'dist/removed.mjs'), 'stale')
  const report = execFileSync('npm', ['pack', '--json', '--silent'], {
    cwd: copy,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  // What the scripts print comes first.
  const [packed] = JSON.parse(report.slice(report.search(/^\[\s*\{/m))) as [{ files: { path: string }[] }]
  const files = packed.files.map(({ path }) => path)
  expect(files).toEqual(expect.arrayContaining(['dist/index.mjs', 'dist/index.d.cts', 'sql/package.json']))
  expect(files).not.toContain('dist/removed.mjs')
  expect(readFileSync(join(copy, 'dist/index.mjs'), 'utf8')).toContain('createApiKeys')
})
