import { isPlainObject } from '../internal/options.ts'
import { type RequestId, RpcRefusal } from './rpc-refusal.ts'

/** A request or a notification of a client. */
export interface CallMessage {
  readonly kind: 'call'
  readonly method: string
  readonly params: Readonly<Record<string, unknown>>
  /** Null for a notification. */
  readonly id: RequestId | null
}

/** What a client sends: a call, or the answer to a request of the server. */
export type Message = CallMessage | { readonly kind: 'answer'; readonly id: RequestId }

const NO_PARAMS = Object.freeze({})

/**
 * Reads the messages of a body that was parsed already: one, or a batch.
 *
 * @throws RpcRefusal
 */
export function readMessages(body: unknown, maxBatchSize: number): readonly Message[] {
  if (!Array.isArray(body)) return [readMessage(body)]
  if (body.length === 0) throw new RpcRefusal(-32600, 'A batch must have a message')
  if (body.length > maxBatchSize) {
    throw new RpcRefusal(-32600, `A batch must have at most ${maxBatchSize} messages`)
  }
  return body.map(readMessage)
}

function readMessage(value: unknown): Message {
  if (!isPlainObject(value) || own(value, 'jsonrpc') !== '2.0') {
    throw new RpcRefusal(-32600, 'The body must be a JSON-RPC 2.0 message')
  }
  const id = own(value, 'id')
  const isAnswer = Object.hasOwn(value, 'result') || Object.hasOwn(value, 'error')
  if (isAnswer && !Object.hasOwn(value, 'method') && isRequestId(id)) {
    checkMembers(value, id)
    return { kind: 'answer', id }
  }
  const method = own(value, 'method')
  if (isAnswer || typeof method !== 'string') {
    throw new RpcRefusal(-32600, 'A message must be a request, a notification or a response', idOf(id))
  }
  if (id !== undefined && !isRequestId(id)) {
    throw new RpcRefusal(-32600, 'The id of a request must be a string or a number')
  }
  checkMembers(value, idOf(id))
  const params = own(value, 'params')
  if (params !== undefined && !isPlainObject(params)) {
    throw new RpcRefusal(-32600, '"params" must be an object', idOf(id))
  }
  if (params) {
    for (const part of [params, ...Object.values(params).filter(isPlainObject)]) checkMembers(part, idOf(id))
  }
  return { kind: 'call', method, params: params ?? NO_PARAMS, id: idOf(id) }
}

/** A member that JSON names, not one that every object has. */
export function own(value: Readonly<Record<string, unknown>>, name: string): unknown {
  return Object.hasOwn(value, name) ? value[name] : undefined
}

/** Code that copies a message by assigning its members would set its prototype, and find there what nobody has checked. */
function checkMembers(value: Readonly<Record<string, unknown>>, id: RequestId | null): void {
  if (Object.hasOwn(value, '__proto__')) {
    throw new RpcRefusal(-32600, 'A message must not have a member "__proto__"', id)
  }
}

function isRequestId(id: unknown): id is RequestId {
  return typeof id === 'string' || typeof id === 'number'
}

function idOf(id: unknown): RequestId | null {
  return isRequestId(id) ? id : null
}
