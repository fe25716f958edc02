import { createSecretKey, type KeyObject } from 'node:crypto'
import { isUint8Array } from '../../internal/any-realm.ts'
import { OptionError } from '../../internal/option-error.ts'
import {
  checkArray,
  checkInteger,
  checkObject,
  checkOneOf,
  describePlain,
  fail,
} from '../../internal/options.ts'

const DEFAULT_BCRYPT_COST = 12
const MAX_PEPPERS = 16
const PEPPER_ID = /^[A-Za-z0-9_-]{1,32}$/

export interface ResolvedScheme {
  readonly name: 'sha256' | 'hmac-sha256' | 'bcrypt'
  readonly cost: number
}

export function checkScheme(
  name: string,
  value: unknown,
  peppers: ReadonlyMap<string, KeyObject>,
): ResolvedScheme {
  if (typeof value === 'object' && value !== null) {
    const given = checkObject(name, value, ['scheme', 'cost'])
    if (given.scheme !== 'bcrypt') {
      const received = describePlain(given.scheme)
      fail(`${name}.scheme`, '"bcrypt" where an object is given', given.scheme, received)
    }
    return { name: 'bcrypt', cost: checkInteger(`${name}.cost`, given.cost ?? DEFAULT_BCRYPT_COST, 4, 15) }
  }
  const scheme = checkOneOf(name, value, ['sha256', 'hmac-sha256', 'bcrypt'])
  if (scheme === 'hmac-sha256' && peppers.size === 0) {
    throw new TypeError(`"${name}" is "hmac-sha256", which needs at least one entry in "peppers"`)
  }
  return { name: scheme, cost: DEFAULT_BCRYPT_COST }
}

export function checkPeppers(name: string, value: unknown): Map<string, KeyObject> {
  const peppers = new Map<string, KeyObject>()
  for (const [i, entry] of checkArray(name, value, MAX_PEPPERS).entries()) {
    const path = `${name}[${i}]`
    const { id, secret } = checkObject(path, entry, ['id', 'secret'])
    if (typeof id !== 'string' || !PEPPER_ID.test(id)) {
      fail(`${path}.id`, '1 to 32 letters, digits, "_" and "-"', id)
    }
    if (peppers.has(id)) throw new OptionError(`${path}.id`, 'be unique among the peppers')
    if (typeof secret !== 'string' && !isUint8Array(secret)) {
      return fail(`${path}.secret`, 'a string or a Uint8Array', secret)
    }
    const bytes = Buffer.from(secret as string)
    if (bytes.length < 32) throw new OptionError(`${path}.secret`, 'be at least 32 bytes long')
    peppers.set(id, createSecretKey(bytes))
  }
  return peppers
}
