/** What clients of node-redis of every kind have in common. */
export interface Connectable {
  readonly isOpen: boolean
  connect(): Promise<unknown>
  destroy(): unknown
  on(event: 'error', listener: () => void): unknown
}

/**
 * Begins to connect a client of node-redis, and gives it the `disconnect` of ioredis, which may be called at any time. `connected` resolves
 * once it has connected, or given up.
 */
export function connecting<T extends Connectable>(
  client: T,
): T & { disconnect(): void; readonly connected: Promise<unknown> } {
  client.on('error', () => {})
  return Object.assign(client, {
    connected: client.connect().catch(() => {}),
    disconnect() {
      if (client.isOpen) void client.destroy()
    },
  })
}

interface Address {
  readonly host: string
  readonly port: number
}

/** What `createCluster` takes. */
export function clusterOptions(nodes: readonly Address[], nodeAddressMap: Record<string, Address> = {}) {
  return { rootNodes: nodes.map(({ host, port }) => ({ socket: { host, port } })), nodeAddressMap }
}
