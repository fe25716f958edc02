import keySlot from 'cluster-key-slot'
import { messageOf } from '../internal/any-realm.ts'
import {
  type ClusterClient,
  type CommandOptions,
  isConnected,
  kindOf,
  type NodeRedisClient,
  notConnected,
  type SentinelClient,
  type SingleClient,
} from './node-redis-client.ts'
import { isReadOnlyError } from './renew-connection.ts'

type Commands = readonly (readonly string[])[]

/** How a client of one kind sends commands. */
export interface Sender {
  readonly isCluster: boolean
  /** Whether there certainly is a connection, so that the command does not wait in the client. */
  isReady(key: string | undefined): boolean
  send(key: string | undefined, args: readonly string[], options: CommandOptions): Promise<unknown>
  /** Sends commands that may be sent twice, on one connection: the one for this key. */
  sendTogether(key: string, commands: Commands): Promise<unknown[]>
  /** In a Cluster: the address of the primary of a slot. */
  primaryOf(slot: number): string | undefined
  /** Reconnects to another server that has taken over. */
  renew(): void
}

export function createSender(client: NodeRedisClient): Sender {
  switch (kindOf(client)) {
    case 'cluster':
      return createClusterSender(client as unknown as ClusterClient)
    case 'sentinel':
      return createSentinelSender(client as unknown as SentinelClient)
    case 'single':
      return createSingleSender(client as unknown as SingleClient)
  }
}

/** After a lost connection, this client sends only what was not sent before. */
function createSingleSender(client: SingleClient): Sender {
  return {
    isCluster: false,
    isReady: () => client.isReady,
    send: (_key, args, options) => client.sendCommand(args, options),
    sendTogether: (_key, commands) => pipe(client, commands),
    primaryOf: () => undefined,
    renew: () => renew(client),
  }
}

async function pipe(client: SingleClient, commands: Commands): Promise<unknown[]> {
  if (!client.isReady) throw new Error('The connection to Redis is lost')
  const pipeline = client.multi()
  for (const command of commands) pipeline.addCommand(command)
  return pipeline.execAsPipeline()
}

/** Connects again, unless the client is about to, or is being closed. */
export function renew(client: SingleClient): void {
  if (!client.isOpen || !client.isReady) return
  client.destroy()
  // What fails is an `error` event too.
  client.connect().catch(() => {})
}

/** This client follows redirections: the server that redirects a command has not run it. */
function createClusterSender(client: ClusterClient): Sender {
  return {
    isCluster: true,
    isReady: (key) => key !== undefined && client.slots[keySlot(key)]?.master.client?.isReady === true,
    async send(key, args, options) {
      // Until it knows the slots, it keeps no commands.
      if (!isConnected(client)) throw notConnected()
      return client.sendCommand(key, false, args, options)
    },
    sendTogether: (key, commands) => pipeToPrimary(client, key, commands),
    primaryOf: (slot) => client.slots[slot]?.master.address,
    // A replica redirects.
    renew: () => {},
  }
}

async function pipeToPrimary(client: ClusterClient, key: string, commands: Commands): Promise<unknown[]> {
  function once(): Promise<unknown[]> {
    const pipeline = client.multi()
    for (const command of commands) pipeline.addCommand(key, false, command)
    return pipeline.execAsPipeline()
  }
  try {
    return await once()
  } catch (error) {
    if (!/^(MOVED|ASK) /.test(messageOf(error))) throw error
    // A pipeline does not follow it. A single command does, and so the client learns where the slot is.
    await client.sendCommand(key, false, commands[0] ?? [], { typeMapping: {}, timeout: undefined })
    return once()
  }
}

/**
 * If the connection is lost, this client sends a command to the next primary again, though the last one may have run it. Therefore
 * `sendOnce` refuses the second time.
 */
function createSentinelSender(client: SentinelClient): Sender {
  return {
    isCluster: false,
    // It looks for a primary while it says that it is ready.
    isReady: () => false,
    send: (_key, args, options) => sendOnce(client, args, options),
    sendTogether: (_key, commands) => client._execute(false, (connection) => pipe(connection, commands)),
    primaryOf: () => undefined,
    // It looks for the primary by itself.
    renew: () => {},
  }
}

function sendOnce(
  client: SentinelClient,
  args: readonly string[],
  options: CommandOptions,
): Promise<unknown> {
  let failure: { readonly error: unknown } | null = null

  return client._execute(false, async (connection) => {
    if (failure) throw failure.error
    try {
      return await connection.sendCommand(args, options)
    } catch (error) {
      // A replica has not run it.
      if (!isReadOnlyError(error)) failure = { error }
      throw error
    }
  })
}
