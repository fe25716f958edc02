import { BlockList, isIP } from 'node:net'
import { checkArray, fail } from '../../internal/options.ts'
import { BOUNDS } from './bounds.ts'
import { MAPPED, readAddress } from './client-address.ts'

interface Rule {
  readonly address: string
  readonly family: 'ipv4' | 'ipv6'
  readonly bits: number
}

/** Returns whether an address is in the list. A missing or malformed address is in no list. */
export type AddressCheck = (ip: string | undefined) => boolean

/**
 * Compiles a list of addresses and CIDR blocks (RFC 4632, RFC 4291 §2.3). An IPv4 address and its IPv4-mapped IPv6 form
 * (`::ffff:192.0.2.1`) are the same address, in the list as well as in the request.
 *
 * @throws TypeError for anything else: skipping a rule would lock clients out.
 */
export function compileAllowedIps(rules: readonly string[]): AddressCheck {
  const list = new BlockList()
  for (const text of rules) {
    const rule = parseRule(text)
    if (!rule) throw new TypeError('an address rule is neither an IP address nor a CIDR block')
    list.addSubnet(rule.address, rule.bits, rule.family)
  }
  return (ip) => {
    const address = readAddress(ip)
    return address !== null && list.check(address.text, address.family)
  }
}

/** Requires a list of IP addresses and CIDR blocks, at most 256. @throws TypeError */
export function checkAllowedIps(name: string, value: unknown): readonly string[] {
  return checkArray(name, value, BOUNDS.allowedIps.max).map((text, i) => {
    if (typeof text === 'string' && parseRule(text)) return text
    return fail(`${name}[${i}]`, 'an IP address or a CIDR block', text)
  })
}

/**
 * Whether every address of `list` is in `ceiling`; null stands for every address. Each entry must lie within a single
 * entry of the ceiling: a block that only several entries cover together does not count.
 */
export function isAddressListWithin(
  list: readonly string[] | null,
  ceiling: readonly string[] | null,
): boolean {
  if (ceiling === null) return true
  if (list === null) return false
  const blocks = ceiling.map(parseRule)
  return list
    .map(parseRule)
    .every((rule) => rule && blocks.some((block) => block && isBlockWithin(rule, block)))
}

function isBlockWithin(rule: Rule, block: Rule): boolean {
  const list = new BlockList()
  list.addSubnet(block.address, block.bits, block.family)
  return bitsInIpv6(rule) >= bitsInIpv6(block) && list.check(rule.address, rule.family)
}

/** An IPv4 address is the end of an IPv4-mapped one. */
function bitsInIpv6({ bits, family }: Rule): number {
  return family === 'ipv4' ? bits + 96 : bits
}

function parseRule(text: string): Rule | null {
  const [ip = '', length, ...rest] = text.split('/')
  if (rest.length > 0 || isIP(ip) === 0 || ip.includes('%')) return null
  const max = isIP(ip) === 4 ? 32 : 128
  if (length !== undefined && !/^\d{1,3}$/.test(length)) return null
  const bits = length === undefined ? max : Number(length)
  if (bits > max) return null
  const mapped = MAPPED.exec(ip)?.[1]
  if (mapped) return bits < 96 ? null : { address: mapped, family: 'ipv4', bits: bits - 96 }
  return { address: ip, family: max === 32 ? 'ipv4' : 'ipv6', bits }
}
