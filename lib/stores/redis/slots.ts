import keySlot from 'cluster-key-slot'
import { primaryOf } from '../../redis/primary-of.ts'
import type { RedisStoreClient } from './client.ts'

/** How many items one script handles at most: it blocks the server, and a call can only have so many arguments. */
const MAX_ITEMS = 500

/** The slot of a key in a Cluster; 0 elsewhere. */
export function slotOf(client: RedisStoreClient, key: string): number {
  return client.isCluster ? keySlot(key) : 0
}

/** The name of the server that holds a key in a Cluster, or the slot if the name is not known; empty elsewhere. */
export function serverOf(client: RedisStoreClient, key: string): string {
  return client.isCluster ? primaryOf(client, key) : ''
}

/** Groups the items that one script can handle: in a Cluster those of one slot, otherwise all, in chunks. */
export function groupByPlace<T>(
  client: RedisStoreClient,
  items: readonly T[],
  keyOf: (item: T) => string,
): T[][] {
  const places = new Map<number, T[]>()
  for (const item of items) {
    const slot = slotOf(client, keyOf(item))
    const place = places.get(slot)
    if (place) place.push(item)
    else places.set(slot, [item])
  }
  return [...places].toSorted(([a], [b]) => a - b).flatMap(([, place]) => inChunks(place))
}

function inChunks<T>(items: readonly T[]): T[][] {
  return Array.from({ length: Math.ceil(items.length / MAX_ITEMS) }, (_, i) =>
    items.slice(i * MAX_ITEMS, (i + 1) * MAX_ITEMS),
  )
}
