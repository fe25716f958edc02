import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'

/** A node of a Redis Cluster talks to the others on a second port, this far above its own. */
const BUS_OFFSET = 10_000

/**
 * A loopback port on which nothing listens, nor on the one 10 000 above it. Somebody else may still take it before
 * its caller does: then ask again.
 */
export async function findFreePort(): Promise<number> {
  for (let attempt = 0; attempt < 100; attempt += 1) {
    const port = await tryPort(0)
    if (port !== null && port + BUS_OFFSET < 65_536 && (await tryPort(port + BUS_OFFSET)) !== null)
      return port
  }
  throw new Error('no port below 55535 is free')
}

/** Listens for a moment; 0 leaves the choice of port to the system. Null where the port is taken. */
async function tryPort(port: number): Promise<number | null> {
  const server = createServer()
  server.listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch {
    return null
  }
  const { port: found } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return found
}
