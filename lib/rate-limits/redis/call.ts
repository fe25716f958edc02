import type { Script } from '../../redis/run-script.ts'
import type { RedisNode } from './node.ts'

export type ScriptArguments = (string | number)[]

/** The keys of a script, all in one slot. */
export type ScriptKeys = readonly [string, ...string[]]

/** What a script asks. `Request` is the subject of one such question. */
export interface Question<Request, Answer> {
  readonly script: Script
  /**
   * The keys of the script and its arguments, by the server's clock: `deadline` is a moment at which the caller is certainly still waiting,
   * `serverTime` is about now.
   */
  argumentsOf(request: Request, keys: ScriptKeys, deadline: number, serverTime: number): ScriptArguments
  /** What a reply means. */
  read(request: Request, reply: readonly unknown[]): Answer
  /** The answer if the server gives none. @throws the error that the call fails with; without `recover`, that is `error` */
  recover?(request: Request, error: unknown): Answer
}

/**
 * A pending call, and its place in the list of deadlines. Calls of all kinds share that list, so their types are erased here: `ask`
 * has checked that question, request and answer belong together.
 */
export class Call {
  dueAt = 0
  sentAt = 0
  sends = 0
  isSettled = false
  earlier: Call | null = null
  later: Call | null = null
  readonly question: Question<never, unknown>
  readonly request: never
  readonly node: RedisNode
  readonly keys: ScriptKeys
  readonly resolve: (answer: never) => void
  readonly reject: (error: unknown) => void

  constructor(
    question: Question<never, unknown>,
    request: unknown,
    node: RedisNode,
    keys: ScriptKeys,
    resolve: (answer: never) => void,
    reject: (error: unknown) => void,
  ) {
    this.question = question
    this.request = request as never
    this.node = node
    this.keys = keys
    this.resolve = resolve
    this.reject = reject
  }
}
