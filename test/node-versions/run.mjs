import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { delimiter, dirname, join } from 'node:path'
import { parseArgs } from 'node:util'

/** Versions of Node that the tests run on, besides the one that runs this: the latest of each line that has a package. */
const VERSIONS = { 22: '22.23.3', 24: '24.21.0', 26: '26.10.0' }

const usage = `npm run test:node -- [--node 22 --node 26] [test files or folders]

Runs the tests on other versions of Node (${Object.keys(VERSIONS).join(', ')}) one after the other.
They are installed below node_modules/.cache when they are first needed.`

const root = join(import.meta.dirname, '../..')
const cache = join(root, 'node_modules/.cache/node-versions')

const { values, positionals } = parseArgs({
  options: { node: { type: 'string', multiple: true }, help: { type: 'boolean' } },
  allowPositionals: true,
})
const wanted = values.node ?? Object.keys(VERSIONS)
const unknown = wanted.filter((line) => !(line in VERSIONS))
if (values.help || unknown.length > 0) {
  console.log(usage)
  process.exit(values.help ? 0 : 2)
}

let failed = 0
for (const line of wanted) {
  const node = installNode(VERSIONS[line])
  console.log(`\n== Node ${VERSIONS[line]}`)
  const { status } = spawnSync(node, ['node_modules/vitest/vitest.mjs', 'run', ...positionals], {
    cwd: root,
    stdio: 'inherit',
    // Programs that tests start by name are of this version too.
    env: { ...process.env, PATH: `${dirname(node)}${delimiter}${process.env.PATH}` },
  })
  if (status !== 0) failed += 1
}
process.exit(failed === 0 ? 0 : 1)

/** The path of a Node of this version, from the platform packages of `node`. */
function installNode(version) {
  const platform = process.platform === 'win32' ? 'win' : process.platform
  const name = `node-${platform}-${process.arch}`
  const folder = join(cache, version)
  const binary = join(folder, 'node_modules', name, 'bin', platform === 'win' ? 'node.exe' : 'node')
  if (!existsSync(binary)) {
    mkdirSync(folder, { recursive: true })
    writeFileSync(join(folder, 'package.json'), '{ "private": true }\n')
    const options = ['--prefix', folder, '--no-save', '--no-audit', '--no-fund', '--ignore-scripts']
    execFileSync('npm', ['install', ...options, `${name}@${version}`], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  }
  return binary
}
