import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** What stands between two programs: it passes everything on, and keeps answers back while it is told to. */
export interface HeldProxy {
  readonly port: number
  /** Keeps answers back from now on; resolves with the first that has come. */
  hold(): Promise<void>
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
        other.destroy()
      })
    }
    near.on('data', (chunk) => far.write(chunk))
    far.on('data', (chunk) => {
      if (!onHeld) return void near.write(chunk)
      kept.push(() => near.write(chunk))
      onHeld()
    })
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    hold: () =>
      new Promise<void>((resolve) => {
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
