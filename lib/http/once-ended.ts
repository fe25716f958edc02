import { type RequestParts, responseOf } from './raw-request.ts'

/** What emits events here: a response, a request, a socket. */
interface Emitter {
  once(event: string, listener: () => void): unknown
  off?(event: string, listener: () => void): unknown
  readonly destroyed?: boolean
  readonly writableFinished?: boolean
}

interface RawRequest extends Partial<Emitter> {
  readonly httpVersionMajor?: number
  readonly socket?: Partial<Emitter> | null
}

/** By socket: what to run when it closes. One listener is enough for many requests. */
const waiting = new WeakMap<object, Set<() => void>>()

/**
 * Runs `run` once the response has ended, however it does: it was sent, or its connection has closed. Of a request that became another
 * protocol (`Upgrade`), or waits behind others on its connection, only the connection tells.
 */
export function onceEnded(parts: RequestParts, run: () => void): void {
  if (parts.onceEnded) {
    parts.onceEnded(run)
    return
  }
  const raw = parts.raw as RawRequest
  // Code that authenticates an `Upgrade` may pass another object in place of a response.
  const response: Emitter | undefined = [parts.response, responseOf(parts.request)].find(isEmitter)
  const ending = response ?? (isEmitter(raw) ? raw : undefined)
  const socket = socketOf(raw)
  let isOver = false
  const end = () => {
    if (isOver) return
    isOver = true
    ending?.off?.('close', end)
    ending?.off?.('finish', end)
    if (socket) waiting.get(socket)?.delete(end)
    run()
  }
  if (!ending || ending.destroyed || response?.writableFinished || socket?.destroyed) {
    end()
    return
  }
  ending.once('close', end)
  ending.once('finish', end)
  if (socket) onceClosed(socket, end)
}

function onceClosed(socket: Emitter, run: () => void): void {
  let all = waiting.get(socket)
  if (!all) {
    const known = new Set<() => void>()
    all = known
    waiting.set(socket, known)
    socket.once('close', () => {
      for (const end of [...known]) end()
    })
  }
  all.add(run)
}

/** In HTTP/2 many requests share a socket, and each has a stream whose end the response tells. */
function socketOf({ httpVersionMajor = 1, socket }: RawRequest): Emitter | undefined {
  return httpVersionMajor < 2 && isEmitter(socket) ? socket : undefined
}

function isEmitter(value: Partial<Emitter> | null | undefined): value is Emitter {
  return typeof value?.once === 'function'
}
