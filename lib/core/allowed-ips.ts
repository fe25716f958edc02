import { BlockList, isIP, SocketAddress } from 'node:net'
import { checkArray, describe } from '../internal/options.ts'
import { BOUNDS } from './bounds.ts'

const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i

interface Rule {
  readonly address: string
  readonly family: 'ipv4' | 'ipv6'
  readonly bits: number
}

/** Answers whether an address is in the list. An address that is not known or not one is in no list. */
export type AddressCheck = (ip: string | undefined) => boolean

/**
 * Compiles a list of addresses and CIDR blocks (RFC 4632, RFC 4291 §2.3). An IPv4 address and its IPv4-mapped
 * IPv6 form (`::ffff:192.0.2.1`) are the same address, in the list as well as in the request.
 *
 * @throws TypeError for anything else: a rule that was left out would lock somebody out.
 */
export function compileAllowedIps(rules: readonly string[]): AddressCheck {
  const list = new BlockList()
  for (const text of rules) {
    const rule = parseRule(text)
    if (!rule) throw new TypeError('an address rule is neither an IP address nor a CIDR block')
    list.addSubnet(rule.address, rule.bits, rule.family)
  }
  return (ip) => {
    const address = ip === undefined ? null : parseAddress(ip)
    return address !== null && list.check(address.address, address.family)
  }
}

/** Requires a list of IP addresses and CIDR blocks, at most 256. @throws TypeError */
export function checkAllowedIps(name: string, value: unknown): readonly string[] {
  return checkArray(name, value, BOUNDS.allowedIps.max).map((text, i) => {
    if (typeof text === 'string' && parseRule(text)) return text
    throw new TypeError(`"${name}[${i}]" must be an IP address or a CIDR block, received ${describe(text)}`)
  })
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

/**
 * What addresses count as one client: an IPv4 address by itself, IPv6 addresses by their first 64 bits, which is the least
 * that a network is given (RFC 6177). Null for what is not an address.
 */
export function addressGroup(ip: string | undefined): string | null {
  const parsed = ip === undefined ? null : parseAddress(ip)
  if (!parsed || parsed.family === 'ipv4') return parsed?.address ?? null
  // The constructor writes an address in one way of the many that there are.
  const { address } = new SocketAddress({ address: parsed.address, family: 'ipv6' })
  const mapped = MAPPED.exec(address)?.[1]
  if (mapped) return mapped
  const [head = '', tail = ''] = address.split('::')
  const first = head === '' ? [] : head.split(':')
  const last = tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => '0')
  const groups = address.includes('::') ? [...first, ...zeros, ...last] : first
  return `${groups.slice(0, 4).join(':')}::/64`
}

/** Whether a text is an address and nothing besides. A zone (`fe80::1%eth0`) could be any text, were it left to `isIP`. */
export function isAddress(text: string): boolean {
  return isIP(text) !== 0 && /^[\w.:%-]+$/.test(text)
}

function parseAddress(ip: string): Omit<Rule, 'bits'> | null {
  const bare = ip.split('%', 1)[0] ?? ''
  const address = MAPPED.exec(bare)?.[1] ?? bare
  const version = isIP(address)
  return version === 0 ? null : { address, family: version === 4 ? 'ipv4' : 'ipv6' }
}
