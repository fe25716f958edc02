import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { onTestFinished } from 'vitest'

/** A response as it came over the wire. */
export interface Answer {
  readonly status: number
  /** The header lines, in order, as they were sent. */
  readonly lines: readonly string[]
  readonly body: string
  /** Everything, for looking for what must not be there. */
  readonly text: string
  /** The value of a header field, its lines joined as RFC 9110 §5.2 does; undefined if there is none. */
  header(name: string): string | undefined
  /** The values of a header field, one for each line. */
  all(name: string): string[]
  json(): Record<string, unknown>
}

export interface AskOptions {
  method?: string
  /** Sent as JSON. */
  json?: unknown
}

/** Sends one request with exactly these header lines. */
export type Ask = (path: string, lines?: readonly string[], options?: AskOptions) => Promise<Answer>

/** Serves `handler` on a free port until the test has ended. */
export async function serve(handler: RequestListener): Promise<Ask> {
  const port = await listen(handler)
  return (path, lines = [], { method = 'GET', json } = {}) => {
    const body = json === undefined ? '' : JSON.stringify(json)
    const head = [`${method} ${path} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...lines]
    if (body) head.push('Content-Type: application/json', `Content-Length: ${body.length}`)
    return exchange(port, `${head.join('\r\n')}\r\n\r\n${body}`)
  }
}

/** The port of 127.0.0.1 on which `handler` answers until the test has ended. */
export async function listen(handler: RequestListener): Promise<number> {
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** Each character becomes one byte: what a client library would refuse to send can be sent here. */
function exchange(port: number, request: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = []
    const socket = connect(port, '127.0.0.1', () => socket.write(request, 'latin1'))
    socket.on('data', (chunk) => chunks.push(chunk))
    socket.on('error', reject)
    socket.on('close', () => resolve(parse(Buffer.concat(chunks).toString('latin1'))))
  })
}

/** Reads a whole response. */
export function parse(text: string): Answer {
  const end = text.indexOf('\r\n\r\n')
  const [statusLine = '', ...lines] = text.slice(0, end).split('\r\n')
  const all = (name: string) =>
    lines.filter((line) => line.toLowerCase().startsWith(`${name.toLowerCase()}: `)).map(fieldValue)
  const rest = text.slice(end + 4)
  const body = all('Transfer-Encoding').includes('chunked') ? joinChunks(rest) : rest
  return {
    status: Number(statusLine.split(' ')[1]),
    lines,
    body,
    text,
    all,
    header: (name) => (all(name).length > 0 ? all(name).join(', ') : undefined),
    json: () => JSON.parse(Buffer.from(body, 'latin1').toString()) as Record<string, unknown>,
  }
}

/** RFC 9112 §7.1. */
function joinChunks(text: string): string {
  const start = text.indexOf('\r\n') + 2
  const size = Number.parseInt(text, 16)
  return size > 0 ? text.slice(start, start + size) + joinChunks(text.slice(start + size + 2)) : ''
}

function fieldValue(line: string): string {
  return line.slice(line.indexOf(':') + 2)
}
