import { execFile } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)
const cache = fileURLToPath(new URL('../../node_modules/.cache', import.meta.url))

/** What generates a client, with the TypeScript that it wants. */
const MANIFEST = JSON.stringify({
  private: true,
  type: 'module',
  dependencies: { 'openapi-fetch': '0.17.0', 'openapi-typescript': '7.13.0', typescript: '5.9.3' },
})

const TSCONFIG = JSON.stringify({
  compilerOptions: {
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    skipLibCheck: true,
    target: 'es2022',
    module: 'nodenext',
    lib: ['es2022', 'dom', 'dom.iterable'],
    types: [],
  },
  files: ['program.ts'],
})

/**
 * Generates a client from an OpenAPI document, compiles a program that uses it under `strict`, and loads that.
 *
 * @param program TypeScript that imports `paths` from './schema.js'
 */
export async function generateClient<Exports>(document: string, program: string): Promise<Exports> {
  const tools = await installTools()
  // Below the tools, so that it finds what they have brought along.
  const folder = join(tools, `run-${randomUUID()}`)
  mkdirSync(folder)
  try {
    writeFileSync(join(folder, 'document.json'), document)
    writeFileSync(join(folder, 'program.ts'), program)
    const node = (script: string, ...args: string[]) =>
      run(process.execPath, [join(tools, 'node_modules', script), ...args], { cwd: folder })
    await node('openapi-typescript/bin/cli.js', 'document.json', '-o', 'schema.ts')
    writeFileSync(join(folder, 'tsconfig.json'), TSCONFIG)
    await node('typescript/bin/tsc').catch((error) => {
      throw new Error(`the program does not compile: ${error.stdout}`)
    })
    return await import(/* @vite-ignore */ pathToFileURL(join(folder, 'program.js')).href)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Installs them once for each version of the manifest. */
async function installTools(): Promise<string> {
  const name = `openapi-client-${createHash('sha256').update(MANIFEST).digest('hex').slice(0, 12)}`
  const place = join(cache, name)
  if (existsSync(place)) return place
  const scratch = `${place}-${randomUUID()}`
  mkdirSync(scratch, { recursive: true })
  writeFileSync(join(scratch, 'package.json'), MANIFEST)
  await run('npm', ['install', '--no-audit', '--no-fund', '--ignore-scripts'], { cwd: scratch })
  try {
    renameSync(scratch, place)
  } catch (error) {
    // Another run was quicker.
    if (!existsSync(place)) throw error
    rmSync(scratch, { recursive: true, force: true })
  }
  return place
}
