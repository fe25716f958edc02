import { isIP, SocketAddress } from 'node:net'

/** An address of a client. */
export interface ClientAddress {
  /** The bare address; an IPv4-mapped IPv6 address as IPv4. */
  readonly text: string
  readonly family: 'ipv4' | 'ipv6'
}

/** Longer texts are not addresses. A client may choose what a proxy that is trusted too far passes on. */
const MAX_LENGTH = 128

const PORT = /^(?:\[([^\]]+)\]|(.*\d\.\d{1,3}\.\d{1,3}\.\d{1,3})):(\d{1,5})$/
const BRACKETED = /^\[(.+)\]$/
/** The interface of a link-local address (RFC 4007 §11), which says nothing of the client. */
const ZONED = /^([^%]*:[^%]*)%[\w.~-]+$/
/** An IPv4 address mapped into IPv6 (RFC 4291 §2.5.5.2). */
export const MAPPED = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i
/** The same as two groups, or with zeros that are written out. */
const MAPPED_OTHERWISE = /^[0:]*:ffff:[\da-f:.]+$/i

/**
 * Reads a client's address as sockets, frameworks and proxies write it: alone, with a port (`192.0.2.1:443`, `[::1]:443`), in
 * brackets, with a zone (`fe80::1%eth0`), or IPv4 mapped into IPv6. Null for anything else.
 */
export function readAddress(given: string | null | undefined): ClientAddress | null {
  if (given === undefined || given === null || given.length > MAX_LENGTH) return null
  const version = isIP(given)
  // Nearly all are written so.
  if (version === 4) return { text: given, family: 'ipv4' }
  const bare = version === 6 && !given.includes('%') ? given : bareAddress(given)
  const text = MAPPED.exec(bare)?.[1] ?? mappedAddress(bare) ?? bare
  const family = isIP(text)
  return family === 0 ? null : { text, family: family === 4 ? 'ipv4' : 'ipv6' }
}

/** Without a port, brackets and a zone. Empty where what is left cannot be an address. */
function bareAddress(given: string): string {
  const [, inBrackets, dotted, port] = PORT.exec(given) ?? []
  if (port !== undefined && Number(port) > 65_535) return ''
  if (dotted !== undefined) return dotted
  const bracketed = inBrackets ?? BRACKETED.exec(given)?.[1]
  const zoned = bracketed ?? given
  const bare = ZONED.exec(zoned)?.[1] ?? zoned
  // Only IPv6 addresses are written in brackets. `isIP` would take any text for a zone.
  return bare.includes('%') || (bracketed !== undefined && isIP(bare) !== 6) ? '' : bare
}

function mappedAddress(text: string): string | undefined {
  if (!MAPPED_OTHERWISE.test(text) || isIP(text) !== 6) return undefined
  // The constructor writes an address in one way of the many that there are.
  return MAPPED.exec(new SocketAddress({ address: text, family: 'ipv6' }).address)?.[1]
}

/**
 * The group of addresses that counts as one client: a single IPv4 address, or IPv6 addresses by their first 64 bits,
 * the smallest network that is assigned (RFC 6177). Null for anything but an address.
 */
export function addressGroup(ip: string | undefined): string | null {
  const read = readAddress(ip)
  if (!read || read.family === 'ipv4') return read?.text ?? null
  const { address } = new SocketAddress({ address: read.text, family: 'ipv6' })
  const [head = '', tail = ''] = address.split('::')
  const first = head === '' ? [] : head.split(':')
  const last = tail === '' ? [] : tail.split(':')
  const zeros = Array.from({ length: 8 - first.length - last.length }, () => '0')
  const groups = address.includes('::') ? [...first, ...zeros, ...last] : first
  return `${groups.slice(0, 4).join(':')}::/64`
}
