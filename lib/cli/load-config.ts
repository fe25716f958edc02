import { readFile, stat } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { messageOf } from '../internal/any-realm.ts'
import { checkFunction, checkObject, isObject, isPlainObject } from '../internal/options.ts'
import { type CliError, usageError } from './cli-error.ts'
import type { LatchkeyConfig } from './config.ts'
import { firstLine } from './describe-error.ts'
import type { CliIo } from './io.ts'

/** The configuration with what the environment adds. */
export interface Configuration {
  /** The file it comes from; null for the environment alone. */
  readonly file: string | null
  /** Whether other users of the machine may read the file, and it holds a password. */
  readonly isExposed: boolean
  readonly store: LatchkeyConfig['store']
  readonly redis: LatchkeyConfig['redis']
  readonly prefix: string | undefined
  /** All members as the file has them. */
  readonly given: LatchkeyConfig
}

const EXTENSIONS = ['ts', 'mts', 'js', 'mjs', 'cjs', 'json']
/** What the file may have beside the options of `createApiKeys`, which are checked there. */
const OWN_MEMBERS = [
  'store',
  'redis',
  'rateLimiter',
  'stores',
  'keys',
  'trustProxy',
  'close',
  'prefix',
] as const

/** The options of `createApiKeys` that are no different here. */
export type OtherOptions = Omit<LatchkeyConfig, (typeof OWN_MEMBERS)[number]>

/** Reads the named file, or the one in the current folder, or the environment alone. @throws CliError */
export async function loadConfig(io: CliIo, named: string | undefined): Promise<Configuration> {
  const file = named === undefined ? await findFile(io.cwd) : resolve(io.cwd, named)
  const given = file === null ? {} : await readConfig(file)
  const { LATCHKEY_STORE, LATCHKEY_REDIS, LATCHKEY_PREFIX } = io.env
  return {
    file,
    isExposed: file !== null && (await isExposed(file)),
    store: given.store ?? (given.keys ? undefined : LATCHKEY_STORE || undefined),
    redis: given.redis ?? (given.keys || given.rateLimiter ? undefined : LATCHKEY_REDIS || undefined),
    prefix: given.prefix ?? (LATCHKEY_PREFIX || undefined),
    given,
  }
}

async function findFile(folder: string): Promise<string | null> {
  const found: string[] = []
  for (const extension of EXTENSIONS) {
    const file = join(folder, `latchkey.config.${extension}`)
    const isThere = await stat(file).then(
      (stats) => stats.isFile(),
      () => false,
    )
    if (isThere) found.push(file)
  }
  if (found.length <= 1) return found[0] ?? null
  const names = found.map((file) => basename(file)).join(' and ')
  throw usageError(`there are ${names}: keep one, or name one with --config`)
}

async function readConfig(file: string): Promise<LatchkeyConfig> {
  const name = basename(file)
  const value = file.endsWith('.json') ? await readJson(file) : await importFile(file)
  if (!isPlainObject(value) && !isApiKeys(value)) {
    throw usageError(`${name} must export a configuration by default: export default defineConfig({ … })`)
  }
  const config: LatchkeyConfig = isApiKeys(value)
    ? { keys: value as never }
    : { ...(value as LatchkeyConfig) }
  try {
    checkMembers(config)
  } catch (error) {
    throw usageError(`${name}: ${firstLine(error)}`)
  }
  return config
}

async function readJson(file: string): Promise<unknown> {
  const text = await readFile(file, 'utf8').catch((error: unknown) => {
    throw unreadable(file, error)
  })
  try {
    return JSON.parse(text)
  } catch {
    // The parser's message repeats a part of the file, which may hold a password.
    throw usageError(`${basename(file)} is not valid JSON`)
  }
}

/** The default export of a module, or what it returns. */
async function importFile(file: string): Promise<unknown> {
  const module = await importModule(file)
  const exported = module.default ?? module
  try {
    return typeof exported === 'function' ? await exported() : await exported
  } catch (error) {
    throw usageError(`${basename(file)} failed: ${firstLine(error)}`)
  }
}

async function importModule(file: string): Promise<{ readonly default?: unknown }> {
  try {
    return await import(/* @vite-ignore */ pathToFileURL(file).href)
  } catch (error) {
    throw unreadable(file, error)
  }
}

function unreadable(file: string, error: unknown): CliError {
  const { code } = (error ?? {}) as NodeJS.ErrnoException
  const name = basename(file)
  const isMissing =
    code === 'ENOENT' || (code === 'ERR_MODULE_NOT_FOUND' && messageOf(error).includes(`'${file}'`))
  if (isMissing) return usageError(`there is no file ${name}`)
  if (code === 'ERR_UNKNOWN_FILE_EXTENSION') {
    return usageError(
      `Node ${process.versions.node} does not read ${name}: run Node 22.18 or later, or npm install --save-dev tsx and set NODE_OPTIONS="--import tsx", or rename it to latchkey.config.mjs and remove its types`,
    )
  }
  return usageError(`${name} cannot be read: ${firstLine(error)}`)
}

function isApiKeys(value: unknown): boolean {
  const { verify, issue, revoke } = (value ?? {}) as Record<string, unknown>
  return [verify, issue, revoke].every((method) => typeof method === 'function')
}

/** @throws TypeError naming the member. */
function checkMembers(config: LatchkeyConfig): void {
  if (config.close !== undefined) checkFunction('close', config.close)
  if (config.stores !== undefined && !isPlainObject(config.stores)) {
    throw new TypeError('"stores" must be an object of stores by their names')
  }
  if (config.redis !== undefined && config.rateLimiter !== undefined) {
    throw new TypeError('"redis" and "rateLimiter" exclude each other: give one')
  }
  if (config.keys === undefined) return
  if (!isApiKeys(config.keys)) throw new TypeError('"keys" must be made by createApiKeys')
  // An option beside `keys` would do nothing.
  checkObject('the configuration', config, ['keys', 'store', 'stores', 'trustProxy', 'close'])
}

/** The options of `createApiKeys` among the members, with secrets of the environment in their place. @throws CliError */
export function otherOptions({ given }: Configuration, env: CliIo['env']): OtherOptions {
  const options: Record<string, unknown> = { ...given }
  for (const name of OWN_MEMBERS) delete options[name]
  if (Array.isArray(options.peppers))
    options.peppers = options.peppers.map((pepper) => withSecret(pepper, env))
  return options
}

function withSecret(pepper: unknown, env: CliIo['env']): unknown {
  if (!isPlainObject(pepper) || typeof pepper.secret !== 'string') return pepper
  return { ...pepper, secret: readEnvironment(pepper.secret, env) }
}

const ENVIRONMENT = /^env:([A-Za-z_]\w*)$/

/** The text, or for `env:NAME` that of the environment variable. @throws CliError if it is not set. */
export function readEnvironment(text: string, env: CliIo['env']): string {
  const [, name] = ENVIRONMENT.exec(text) ?? []
  if (name === undefined) return text
  const value = env[name]
  if (!value) throw usageError(`the environment variable ${name} is not set`)
  return value
}

/** An address with its options, where it was given by itself. */
export function addressOf<T extends { address: string }>(value: string | T): T {
  return typeof value === 'string' ? ({ address: value } as T) : value
}

/** Whether a member is an address rather than an object with methods. */
export function isAddress(value: unknown): value is string | { readonly address: string } {
  return typeof value === 'string' || (isObject(value) && typeof value.address === 'string')
}

/** Whether others than the owner may read a JSON file with a password in it. Other files are programs, which read elsewhere. */
async function isExposed(file: string): Promise<boolean> {
  if (!file.endsWith('.json') || process.platform === 'win32') return false
  const { mode } = await stat(file)
  const text = await readFile(file, 'utf8')
  const holdsPassword = /:\/\/[^\s/"]*:[^\s/"]+@/.test(text) || /"secret"\s*:\s*"(?!env:)/.test(text)
  return holdsPassword && (mode & 0o044) !== 0
}
