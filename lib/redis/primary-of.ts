import keySlot from 'cluster-key-slot'

/** What a Cluster client knows of its slots. */
export interface SlotNames {
  /** The nodes of each slot, the primary first. */
  readonly slots?: readonly (readonly string[])[]
  primaryOf?(slot: number): string | undefined
}

/** The name of the primary that holds a key in a Cluster, or the slot if the name is not known. */
export function primaryOf(client: SlotNames, key: string): string {
  const slot = keySlot(key)
  return (client.primaryOf ? client.primaryOf(slot) : client.slots?.[slot]?.[0]) ?? String(slot)
}
