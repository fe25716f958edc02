import { BlockList, isIP } from 'node:net'
import type { KeyStore } from '../../core/keys/key-store.ts'
import { type Finding, findings } from './finding.ts'

const addresses = findings('client addresses')

const SAMPLE = 1_000
/** Fewer say nothing. */
const FEWEST = 3

/** Addresses of machines that are not on the public internet: proxies, as a rule, and no clients. */
const PRIVATE = new BlockList()
for (const [network, prefix] of [
  ['10.0.0.0', 8],
  ['172.16.0.0', 12],
  ['192.168.0.0', 16],
  ['127.0.0.0', 8],
  ['100.64.0.0', 10],
] as const) {
  PRIVATE.addSubnet(network, prefix, 'ipv4')
}
PRIVATE.addSubnet('fc00::', 7, 'ipv6')
PRIVATE.addAddress('::1', 'ipv6')

/** Whether uses of keys come from where clients are: if all come from one private address, a proxy is not trusted that should be. */
export async function checkUses(store: KeyStore): Promise<readonly Finding[]> {
  const latest = await store.list({}, { limit: SAMPLE, order: 'newest' })
  const used = latest.flatMap(({ lastUsedIp }) => lastUsedIp ?? [])
  if (used.length < FEWEST) return []
  const isPrivate = (address: string) =>
    isIP(address) > 0 && PRIVATE.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  if (!used.every(isPrivate)) return [addresses.ok('uses come from public addresses')]
  return [
    addresses.warning(
      `all of ${used.length} keys were last used from private addresses: unless your clients are there, the application does not trust its proxy, and "allowedIps" sees the proxy`,
    ),
  ]
}
