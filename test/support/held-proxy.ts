import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** What stands between two programs: it passes everything on, and keeps answers back while it is told to. */
export interface HeldProxy {
  readonly port: number
  /**
   * Keeps answers back from now on; resolves with the first that has come. With `asked`, in lower case, only those on connections over
   * which this text is sent from now on: a client may ask for something else meanwhile.
   */
  hold(asked?: string): Promise<void>
  /** Lets them go. */
  release(): void
  /** Ends every connection, with the answers that are kept, and takes new ones. */
  cut(): void
  /** Passes new connections on to another port. */
  turnTo(target: number): void
  stop(): void
}

/** Starts one before a port of this machine. */
export async function startHeldProxy(firstTarget: number): Promise<HeldProxy> {
  let target = firstTarget
  const sockets = new Set<Socket>()
  const kept: (() => void)[] = []
  let onHeld: (() => void) | null = null
  /** What has to be asked for on a connection, and the connections on which it was; with '' all of them. */
  let wanted = ''
  const asking = new Set<Socket>()

  const server = createServer((near) => {
    const far = connect(target, '127.0.0.1')
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        asking.delete(socket)
        other.destroy()
      })
    }
    near.on('data', (chunk) => {
      if (chunk.toString('latin1').toLowerCase().includes(wanted)) asking.add(near)
      far.write(chunk)
    })
    far.on('data', (chunk) => {
      if (!onHeld || (wanted !== '' && !asking.has(near))) return void near.write(chunk)
      kept.push(() => near.write(chunk))
      onHeld()
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    hold: (asked = '') =>
      new Promise<void>((resolve) => {
        wanted = asked
        asking.clear()
        onHeld = resolve
      }),
    release() {
      onHeld = null
      for (const letGo of kept.splice(0)) letGo()
    },
    cut() {
      onHeld = null
      kept.length = 0
      for (const socket of sockets) socket.destroy()
    },
    turnTo(next) {
      target = next
    },
    stop() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}
