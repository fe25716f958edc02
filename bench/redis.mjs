import { tsImport } from 'tsx/esm/api'

/**
 * Runs `measure` with the address of a Redis server of its own on loopback, which keeps nothing on disk and ends
 * with it, whatever came of it. Only this process compiles TypeScript: what is measured runs in others, as built.
 */
export async function withRedis(measure) {
  const { startRedis } = await tsImport('../test/support/redis-server.ts', import.meta.url)
  const server = await startRedis()
  try {
    return await measure(server.url)
  } finally {
    await server.stop()
  }
}
