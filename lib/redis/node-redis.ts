import { type CommandOptions, isConnected, type NodeRedisClient, notConnected } from './node-redis-client.ts'
import { createSender, type Sender } from './node-redis-senders.ts'

/** A script's answer comes as text and numbers, whatever the application has set for its own commands. */
const PLAIN: CommandOptions = Object.freeze({ typeMapping: Object.freeze({}), timeout: undefined })

/** How long a command may wait in the client for a connection, and how many may wait. */
const WAIT_MS = 5_000
const MAX_WAITING = 10_000

/** Clients whose errors somebody listens to. */
const heard = new WeakSet<NodeRedisClient>()

/**
 * A client of node-redis, with the methods of an ioredis client that Latchkey uses. A command that may have reached Redis is never sent
 * again.
 */
export class NodeRedisAdapter {
  readonly isCluster: boolean
  readonly #client: NodeRedisClient
  readonly #sender: Sender
  #pending = 0

  constructor(client: NodeRedisClient) {
    this.#client = client
    this.#sender = createSender(client)
    this.isCluster = this.#sender.isCluster
    if (heard.has(client)) return
    heard.add(client)
    // Without a listener, a lost connection would end the process. The failed calls report it.
    client.on('error', () => {})
  }

  get status(): string {
    if (!this.#client.isOpen) return 'end'
    return isConnected(this.#client) ? 'ready' : 'reconnecting'
  }

  eval(script: string, numberOfKeys: number, ...given: (string | number)[]): Promise<unknown> {
    return this.#run('EVAL', script, numberOfKeys, given)
  }

  evalsha(sha: string, numberOfKeys: number, ...given: (string | number)[]): Promise<unknown> {
    return this.#run('EVALSHA', sha, numberOfKeys, given)
  }

  publish(channel: string, message: string): Promise<unknown> {
    return this.#send(undefined, ['PUBLISH', channel, message])
  }

  /** The first command is EVAL with a key. */
  pipeline(commands: readonly (readonly string[])[]) {
    return { exec: () => this.#sendTogether(commands) }
  }

  /** Reconnects. The connection is the application's, which also ends it. */
  disconnect(): void {
    this.#sender.renew()
  }

  primaryOf(slot: number): string | undefined {
    return this.#sender.primaryOf(slot)
  }

  #run(
    command: string,
    script: string,
    numberOfKeys: number,
    given: readonly (string | number)[],
  ): Promise<unknown> {
    const args = [command, script, String(numberOfKeys)]
    for (const one of given) args.push(String(one))
    return this.#send(args[3], args)
  }

  #send(key: string | undefined, args: readonly string[]): Promise<unknown> {
    if (!this.#client.isOpen) return Promise.reject(notConnected())
    const isReady = this.#sender.isReady(key)
    if (!isReady && this.#pending >= MAX_WAITING) {
      return Promise.reject(new Error(`${MAX_WAITING} commands are waiting for Redis already`))
    }
    const options = isReady ? PLAIN : { ...PLAIN, abortSignal: AbortSignal.timeout(WAIT_MS) }
    this.#pending += 1
    return this.#sender.send(key, args, options).then(
      (reply) => {
        this.#pending -= 1
        return reply
      },
      (error: unknown) => {
        this.#pending -= 1
        throw error
      },
    )
  }

  /** As with ioredis, an error is part of the result. */
  async #sendTogether(commands: readonly (readonly string[])[]) {
    try {
      if (!this.#client.isOpen) throw notConnected()
      const replies = await this.#sender.sendTogether(String(commands[0]?.[3]), commands)
      return replies.map((reply) => [null, reply] as const)
    } catch (error) {
      return [[error, undefined] as const]
    }
  }
}
