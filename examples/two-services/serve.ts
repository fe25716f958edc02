import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'

const HOST = '127.0.0.1'

/**
 * Serves an application until the process gets a signal to end. Requests in progress may finish first, for at most two seconds.
 *
 * @returns its address
 */
export async function serve(
  app: RequestListener,
  port: string,
  close: () => Promise<void> = async () => {},
): Promise<string> {
  const server = createServer(app)
  let isClosing = false

  async function end(): Promise<void> {
    if (isClosing) return
    isClosing = true
    const impatience = setTimeout(() => server.closeAllConnections(), 2_000)
    await new Promise((resolve) => server.close(resolve))
    clearTimeout(impatience)
    await close()
    process.disconnect?.()
  }

  try {
    await once(server.listen(readPort(port), HOST), 'listening')
  } catch (error) {
    await close()
    throw error
  }
  // `disconnect`: the process that started this one is gone.
  for (const event of ['SIGINT', 'SIGTERM', 'disconnect']) process.once(event, end)
  return `http://${HOST}:${(server.address() as AddressInfo).port}`
}

function readPort(given: string): number {
  if (!/^\d+$/.test(given) || Number(given) > 65_535) throw new Error('PORT must be a number from 0 to 65535')
  return Number(given)
}
