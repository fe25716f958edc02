import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { createScriptRunner, type Script } from '../../redis/run-script.ts'
import type { RedisConnection } from './connection.ts'
import type { RedisNode } from './node.ts'
import { CODE } from './scripts.ts'

export type ScriptArguments = (string | number)[]

/** A kind of question that is asked by a script; `Request` is what one such question is about. */
export interface Question<Request, Answer> {
  readonly script: Script
  /**
   * The arguments of the script. `deadline` is when by the server's clock its caller will surely not have given up yet,
   * `serverTime` what that clock shows about now.
   */
  argumentsOf(request: Request, deadline: number, serverTime: number): ScriptArguments
  /** What a reply means. */
  read(request: Request, reply: readonly unknown[]): Answer
  /** The answer where the server has none. @throws what the call is to fail with; without it, that is `error` */
  recover?(request: Request, error: unknown): Answer
}

export interface RedisCalls {
  /**
   * Asks, and settles within the deadline, whatever becomes of the call: an application's client may be set up to wait
   * for ever. A reply begins with a code and the time of the server. Where that shows that the server's clock is not where it
   * was thought to be, and so that the script did nothing, it is sent again while there is time.
   */
  ask<Request, Answer>(
    question: Question<Request, Answer>,
    request: Request,
    node: RedisNode,
    key: string,
  ): Promise<Answer>
}

/** How often a script is sent again because the server's clock was not where it was thought to be. */
const MAX_SENDS = 4

/** Sends scripts, each with the same deadline. */
export function createRedisCalls(connection: RedisConnection, timeoutMs: number, clock: Clock): RedisCalls {
  const deadlines = createDeadlines(timeoutMs, clock)
  const runScript = createScriptRunner(() => connection.current())

  return {
    ask(question, request, node, key) {
      return new Promise((resolve, reject) => {
        const call = new Call(question, request, node, key, resolve, reject)
        deadlines.start(call)
        send(call, call.sentAt)
      })
    },
  }

  function send(call: Call, now: number): void {
    const { question, request, node, key } = call
    call.sentAt = now
    call.sends += 1
    // Where nothing is known of the server's clock, a deadline that has passed has it say what time it is.
    const deadline = Math.floor(node.toServerTime(call.dueAt) ?? 0)
    const serverTime = Math.floor(node.toServerTime(now) ?? Date.now())
    try {
      const args = question.argumentsOf(request, deadline, serverTime)
      runScript(question.script, 1, [key, ...args]).then(
        (reply) => receive(call, reply),
        (error) => fail(call, error),
      )
    } catch (error) {
      fail(call, error)
    }
  }

  function receive(call: Call, reply: unknown): void {
    if (call.isSettled) return
    if (!isReply(reply)) {
      fail(call, new TypeError('Unexpected reply from Redis'))
      return
    }
    const now = clock.now()
    call.node.answered(call.sentAt, now, Number(reply[1]))
    const code = Number(reply[0])
    if (code !== CODE.late && code !== CODE.otherPeriod) succeed(call, reply)
    else if (now < call.dueAt && call.sends < MAX_SENDS) send(call, now)
    else fail(call, new Error('The call reached Redis too late'))
  }

  function succeed(call: Call, reply: readonly unknown[]): void {
    deadlines.end(call)
    resolveWith(call, () => call.question.read(call.request, reply))
  }

  function fail(call: Call, error: unknown): void {
    if (call.isSettled) return
    deadlines.end(call)
    connection.failed(error)
    if (!isAboutOneKey(error)) call.node.failed(error)
    const { question } = call
    if (question.recover) resolveWith(call, () => question.recover?.(call.request, error))
    else call.reject(error)
  }

  function resolveWith(call: Call, answer: () => unknown): void {
    try {
      call.resolve(answer() as never)
    } catch (error) {
      call.reject(error)
    }
  }

  /**
   * Deadlines of one length, all on one timer: they fall due in the order in which they began.
   *
   * A process that was busy for longer than the deadline finds timer and reply waiting together. The replies that have
   * arrived are read first, so that a pause of ours is not taken for one of the server.
   */
  function createDeadlines(timeoutMs: number, clock: Clock) {
    let first: Call | null = null
    let last: Call | null = null
    let isArmed = false

    function start(call: Call): void {
      call.sentAt = clock.now()
      call.dueAt = call.sentAt + timeoutMs
      call.earlier = last
      if (last) last.later = call
      else first = call
      last = call
      if (!isArmed) arm(timeoutMs)
    }

    function end(call: Call): void {
      call.isSettled = true
      if (call.earlier) call.earlier.later = call.later
      else first = call.later
      if (call.later) call.later.earlier = call.earlier
      else last = call.earlier
    }

    function arm(delayMs: number): void {
      isArmed = true
      const expireSoon = () => setImmediate(expire, clock.now())
      clock.setTimer(expireSoon, Math.max(1, Math.ceil(delayMs)), { background: true })
    }

    /** Ends the calls that were due when the timer ran; those that began since have not had their chance. */
    function expire(now: number): void {
      isArmed = false
      while (first && first.dueAt <= now) {
        fail(first, new Error(`Redis did not answer within ${timeoutMs} milliseconds`))
      }
      if (first) arm(first.dueAt - clock.now())
    }

    return { start, end }
  }
}

/**
 * A call that is waited for; also its place among the others, in the order in which they fall due. Calls of every kind
 * wait in one list, so that the types of what is asked and answered are forgotten here: `ask` has put them together.
 */
class Call {
  dueAt = 0
  sentAt = 0
  sends = 0
  isSettled = false
  earlier: Call | null = null
  later: Call | null = null
  readonly question: Question<never, unknown>
  readonly request: never
  readonly node: RedisNode
  readonly key: string
  readonly resolve: (answer: never) => void
  readonly reject: (error: unknown) => void

  constructor(
    question: Question<never, unknown>,
    request: unknown,
    node: RedisNode,
    key: string,
    resolve: (answer: never) => void,
    reject: (error: unknown) => void,
  ) {
    this.question = question
    this.request = request as never
    this.node = node
    this.key = key
    this.resolve = resolve
    this.reject = reject
  }
}

function isReply(reply: unknown): reply is readonly unknown[] {
  if (!Array.isArray(reply) || reply.length < 2) return false
  for (const part of reply) if (!Number.isFinite(part) && !isNumberText(part)) return false
  return true
}

/** A fraction, or any number for a client that was told not to read numbers. */
function isNumberText(part: unknown): boolean {
  return typeof part === 'string' && part !== '' && Number.isFinite(Number(part))
}

/** A value under one key that is not ours says nothing of the server. */
function isAboutOneKey(error: unknown): boolean {
  return /WRONGTYPE|LATCHKEY/.test(messageOf(error))
}
