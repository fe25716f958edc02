import { usageError } from './cli-error.ts'
import type { RedisAddress, StoreAddress } from './config.ts'
import type { CliIo } from './io.ts'
import { readEnvironment } from './load-config.ts'
import { maskSecrets } from './mask-secrets.ts'
import type { Output } from './output.ts'

export type StoreKind = 'postgres' | 'mysql' | 'sqlite' | 'redis'

/** An address that was read. */
export interface Address {
  readonly kind: StoreKind
  /** For a driver: a URL, or the name of a file. */
  readonly target: string
  /** For people, without its password. */
  readonly shown: string
}

const SCHEMES: readonly (readonly [RegExp, StoreKind])[] = [
  [/^postgres(?:ql)?:\/\//i, 'postgres'],
  [/^(?:mysql|mariadb):\/\//i, 'mysql'],
  [/^rediss?:\/\//i, 'redis'],
]
const SQLITE = /^(?:sqlite|file):(?:\/\/)?(.+)$/i
const SQLITE_FILE = /^[^:]+\.(?:db|sqlite|sqlite3)$/i

/** Reads the address of a store. @throws CliError that does not repeat it. */
export function readStoreAddress({ address }: StoreAddress, io: CliIo, output: Output): Address {
  const text = readEnvironment(address, io.env)
  hidePassword(text, output)
  const [, kind] = SCHEMES.find(([scheme]) => scheme.test(text)) ?? []
  if (kind) {
    checkUrl(text, 'store')
    return { kind, target: text.replace(/^mariadb:/i, 'mysql:'), shown: maskSecrets(text) }
  }
  const file = SQLITE.exec(text)?.[1] ?? (SQLITE_FILE.test(text) ? text : undefined)
  if (file !== undefined) return { kind: 'sqlite', target: file, shown: `sqlite:${file}` }
  throw usageError(
    'the address of the store must begin with postgres://, mysql://, mariadb://, redis:// or rediss://, or name a file: sqlite:keys.db',
  )
}

/** Reads the address of Redis. @throws CliError that does not repeat it. */
export function readRedisAddress({ address }: RedisAddress, io: CliIo, output: Output): Address {
  const text = readEnvironment(address, io.env)
  hidePassword(text, output)
  if (!/^rediss?:\/\//i.test(text))
    throw usageError('the address of Redis must begin with redis:// or rediss://')
  checkUrl(text, 'Redis')
  return { kind: 'redis', target: text, shown: maskSecrets(text) }
}

/** Drivers may repeat a wrong address in their errors. */
function checkUrl(text: string, what: string): void {
  const name = what === 'store' ? 'the store' : what
  if (!URL.canParse(text)) throw usageError(`the address of ${name} is not a URL`)
  // A password with one of these, not encoded, would count as part of the path, and be shown.
  if (/^[^/]*\/\/[^/?#]*[/?#].*@/.test(text)) {
    throw usageError(
      `the address of ${name} has an "@" after its host: encode "/", "?" and "#" in the password`,
    )
  }
}

function hidePassword(text: string, output: Output): void {
  const [, written] = /^[a-z][a-z0-9+.-]*:\/\/[^\s/?#:@]*:([^\s/?#]*)@/i.exec(text) ?? []
  if (!written) return
  output.hide(written)
  try {
    output.hide(decodeURIComponent(written))
  } catch {
    // Not encoded, and hidden as it is.
  }
}
