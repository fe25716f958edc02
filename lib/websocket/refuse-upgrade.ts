import { type IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { LatchkeyError } from '../errors.ts'
import { renderProblem } from '../http/problem.ts'

/** How long a client may take to read the answer and to close its side. */
const LINGER_MS = 2_000

/**
 * Answers an upgrade request with a problem body, and ends its socket: soon, even if the client neither reads nor closes. What the client
 * goes on sending is dropped; a socket with unread bytes would be reset, and the answer lost.
 */
export function refuseUpgrade(request: IncomingMessage, socket: Duplex, error: LatchkeyError): void {
  if (socket.destroyed) return
  const timer = setTimeout(() => socket.destroy(), LINGER_MS).unref()
  socket.once('close', () => clearTimeout(timer))
  socket.resume()
  const { headers, body } = renderProblem(error)
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  try {
    // It throws where an earlier request of the connection is not answered yet.
    response.assignSocket(socket as Socket)
    response.writeHead(error.status, { ...headers, 'Content-Length': Buffer.byteLength(body) })
    response.end(body, () => socket.end())
  } catch {
    socket.destroy()
  }
}
