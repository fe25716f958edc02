import { connect } from 'node:net'

/**
 * Opens keep-alive connections to one server. Each has one request under way at a time; nothing is pipelined.
 * A plain socket is used because the load shares the machine with the server: the less it does, the better.
 */
export async function openConnections({ port, path, key, count }) {
  const sockets = await Promise.all(Array.from({ length: count }, () => open(port)))
  const request = Buffer.from(
    `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: application/json\r\nX-Api-Key: ${key}\r\n\r\n`,
  )
  return {
    /**
     * Sends this many requests over all connections; resolves with the time of the whole and of each. Rejects on any
     * answer other than 200.
     */
    send: (requests) => sendAll(sockets, request, requests),
    close() {
      for (const socket of sockets) socket.destroy()
    },
  }
}

const stallMs = 30_000

function sendAll(sockets, request, requests) {
  return new Promise((resolve, reject) => {
    let unsent = requests
    let unanswered = requests
    const sentAt = new Map()
    const latenciesMs = []
    const startedAt = process.hrtime.bigint()
    const stall = setTimeout(() => finish(new Error(`no answer within ${stallMs} ms`)), stallMs)
    const onClose = () => finish(new Error('the server closed a connection'))

    for (const socket of sockets) {
      socket.on('data', createReader(onAnswer))
      socket.on('close', onClose)
      sendNext(socket)
    }

    function sendNext(socket) {
      if (unsent === 0) return
      unsent -= 1
      sentAt.set(socket, performance.now())
      socket.write(request)
    }

    function onAnswer(error, socket) {
      if (error) return finish(error)
      unanswered -= 1
      latenciesMs.push(performance.now() - sentAt.get(socket))
      if (unanswered === 0) return finish()
      sendNext(socket)
    }

    function finish(error) {
      const elapsedMs = Number(process.hrtime.bigint() - startedAt) / 1e6
      clearTimeout(stall)
      for (const socket of sockets) {
        socket.removeAllListeners('data')
        socket.off('close', onClose)
      }
      if (error) reject(error)
      else resolve({ elapsedMs, latenciesMs })
    }
  })
}

/** Reports each complete answer; needs `Content-Length`, which the measured route always sends. */
function createReader(onAnswer) {
  let pending = ''
  return function read(chunk) {
    pending += chunk.latin1Slice()
    const headEnd = pending.indexOf('\r\n\r\n')
    if (headEnd === -1) return
    if (!pending.startsWith('HTTP/1.1 200 ')) {
      return onAnswer(new Error(`expected 200, received "${pending.slice(0, pending.indexOf('\r\n'))}"`))
    }
    const length = /\r\ncontent-length: (\d+)\r\n/i.exec(pending)
    if (!length) return onAnswer(new Error('an answer came without Content-Length'))
    if (pending.length < headEnd + 4 + Number(length[1])) return
    pending = ''
    onAnswer(undefined, this)
  }
}

function open(port) {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }, () => {
      socket.off('error', reject)
      socket.on('error', () => {}) // 'close' follows and is reported where requests are under way
      resolve(socket)
    })
    socket.once('error', reject)
  })
}
