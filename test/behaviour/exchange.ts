import { connect, type Socket } from 'node:net'
import { type Answer, parse } from '../support/raw-http.ts'
import type { Request } from './row.ts'

/** A connection that carries one request after another. */
export interface Connection {
  ask(request: Request): Promise<Answer>
  close(): void
}

/** Connects to a port of 127.0.0.1. Header lines are sent as they are, each character as one byte. */
export function openConnection(port: number): Connection {
  const socket = connect(port, '127.0.0.1')
  return {
    async ask({ method = 'GET', path = '/', lines }) {
      socket.write(
        `${[`${method} ${path} HTTP/1.1`, 'Host: localhost', ...lines].join('\r\n')}\r\n\r\n`,
        'latin1',
      )
      return parse(await readResponse(socket, method === 'HEAD'))
    },
    close: () => void socket.destroy(),
  }
}

function readResponse(socket: Socket, isHead: boolean): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const end = (settle: () => void) => {
      socket.off('data', read).off('close', closed)
      settle()
    }
    function read(chunk: Buffer) {
      text += chunk.toString('latin1')
      if (isComplete(text, isHead)) end(() => resolve(text))
    }
    function closed() {
      end(() => reject(new Error(`the connection was closed after ${JSON.stringify(text)}`)))
    }
    socket.on('data', read).on('close', closed)
  })
}

/** RFC 9112 §6.3. */
function isComplete(text: string, isHead: boolean): boolean {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return false
  if (isHead || /^HTTP\/1\.1 (204|304)/.test(text)) return true
  const head = text.slice(0, end)
  const length = /\r\ncontent-length: (\d+)/i.exec(head)
  if (length) return text.length - end - 4 >= Number(length[1])
  return text.endsWith('0\r\n\r\n')
}
