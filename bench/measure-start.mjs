/**
 * How long it takes to load the library and Express, and to answer the first `verify()`, each time in a process of its own:
 * `measure-start.mjs <rounds> <seed> <folder>`. Sends one object of milliseconds per round, and the size of a bundle.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build } from 'esbuild'
import { createApiKeys, memoryRateLimiter } from '../dist/index.mjs'
import { migrate, sqliteStore } from '../dist/sql.mjs'
import { createRandom, shuffle } from './statistics.mjs'

const [, , rounds, seed, folder] = process.argv
const random = createRandom(Number(seed))
const file = join(folder, 'start.db')
const subjects = ['express', 'latchkey', 'latchkey-after-express', 'first-verify']

const key = await fill()
const measured = []
for (let round = -1; round < Number(rounds); round += 1) {
  const figures = {}
  for (const subject of shuffle(subjects, random)) figures[subject] = await run(subject)
  // The first round brings the files into the memory of the machine.
  if (round >= 0) measured.push(figures)
}
process.send({ measured, bundledBytes: await bundle() }, () => process.disconnect())

async function fill() {
  const store = sqliteStore(file)
  await migrate(store)
  const keys = createApiKeys({ store, rateLimiter: memoryRateLimiter(), prefix: 'bench' })
  const { key } = await keys.issue({ owner: { type: 'user', id: 'u_1' }, name: 'bench' })
  // The first use of a key is written at once, which is not what is measured.
  await keys.verify(key)
  await keys.close()
  await store.close()
  return key
}

async function run(subject) {
  const script = fileURLToPath(new URL('time-start.mjs', import.meta.url))
  const child = fork(script, [subject, file, key], { execArgv: [] })
  const exited = once(child, 'exit').then(([code]) => {
    if (code !== 0) throw new Error(`"${subject}" ended with code ${code}`)
  })
  const [took] = await Promise.race([once(child, 'message'), exited])
  await exited
  return took
}

/** What an application with a memory store and Express's door bundles of the library: minified, bytes. */
async function bundle() {
  const contents = `
    export { createApiKeys, memoryRateLimiter, memoryStore } from './index.mjs'
    export { apiKeyAuth, requireSession } from './express.mjs'`
  const resolveDir = fileURLToPath(new URL('../dist', import.meta.url))
  const { outputFiles } = await build({
    stdin: { contents, resolveDir },
    bundle: true,
    minify: true,
    write: false,
    platform: 'node',
    format: 'esm',
    external: ['bcrypt'],
  })
  return outputFiles[0].contents.length
}
