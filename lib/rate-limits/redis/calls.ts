import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../internal/any-realm.ts'
import { type CallScript, createScriptCaller } from '../../redis/run-script.ts'
import { Call, type Question, type ScriptKeys } from './call.ts'
import type { RedisConnection } from './connection.ts'
import { createDeadlines, type Deadlines } from './deadlines.ts'
import type { RedisNode } from './node.ts'
import { CODE } from './scripts/parts.ts'

export interface RedisCalls {
  /**
   * Asks, and settles within the deadline whatever the client does: an application's client may wait forever.
   *
   * A reply begins with a code and the server's time. If the code says that the server's clock is not where it was expected, the
   * script did nothing, and it is sent again while there is time.
   */
  ask<Request, Answer>(
    question: Question<Request, Answer>,
    request: Request,
    node: RedisNode,
    keys: ScriptKeys,
  ): Promise<Answer>
}

/** What calls are sent with. */
interface Sender {
  readonly connection: RedisConnection
  readonly clock: Clock
  readonly callScript: CallScript
  readonly deadlines: Deadlines
}

/** How often a script is sent because the server's clock was not where it was expected. */
const MAX_SENDS = 4

/** Sends scripts, all with the same deadline. */
export function createRedisCalls(connection: RedisConnection, timeoutMs: number, clock: Clock): RedisCalls {
  const sender: Sender = {
    connection,
    clock,
    callScript: createScriptCaller(() => connection.current()),
    deadlines: createDeadlines(timeoutMs, clock, (call, error) => fail(sender, call, error)),
  }

  return {
    ask(question, request, node, keys) {
      return new Promise((resolve, reject) => {
        const call = new Call(question, request, node, keys, resolve, reject)
        sender.deadlines.start(call)
        send(sender, call, call.sentAt)
      })
    },
  }
}

function send(sender: Sender, call: Call, now: number): void {
  const { question, request, node, keys } = call
  call.sentAt = now
  call.sends += 1
  // If nothing is known of the server's clock, a deadline in the past makes the script return the time.
  const deadline = Math.floor(node.toServerTime(call.dueAt) ?? 0)
  const serverTime = Math.floor(node.toServerTime(now) ?? Date.now())
  try {
    sender.callScript(
      question.script,
      keys.length,
      question.argumentsOf(request, keys, deadline, serverTime),
      (reply) => receive(sender, call, reply),
      (error) => fail(sender, call, error),
    )
  } catch (error) {
    fail(sender, call, error)
  }
}

function receive(sender: Sender, call: Call, reply: unknown): void {
  if (call.isSettled) return
  if (!isReply(reply)) {
    fail(sender, call, new TypeError('Unexpected reply from Redis'))
    return
  }
  const now = sender.clock.now()
  call.node.answered(call.sentAt, now, Number(reply[1]))
  const code = Number(reply[0])
  if (code !== CODE.late && code !== CODE.otherPeriod) succeed(sender, call, reply)
  else if (now < call.dueAt && call.sends < MAX_SENDS) send(sender, call, now)
  else fail(sender, call, new Error('The call reached Redis too late'))
}

function succeed({ deadlines }: Sender, call: Call, reply: readonly unknown[]): void {
  deadlines.end(call)
  resolveWith(call, () => call.question.read(call.request, reply))
}

function fail({ connection, deadlines }: Sender, call: Call, error: unknown): void {
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

function isReply(reply: unknown): reply is readonly unknown[] {
  if (!Array.isArray(reply) || reply.length < 2) return false
  for (const part of reply) if (!Number.isFinite(part) && !isNumberText(part)) return false
  return true
}

/** A fraction, or any number if the client is set to return numbers as text. */
function isNumberText(part: unknown): boolean {
  return typeof part === 'string' && part !== '' && Number.isFinite(Number(part))
}

/** Whether the error comes from a foreign value under one key, which says nothing about the server. */
function isAboutOneKey(error: unknown): boolean {
  return /WRONGTYPE|LATCHKEY/.test(messageOf(error))
}
