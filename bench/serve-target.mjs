/**
 * One target in a process of its own: `serve-target.mjs <name> [<redisUrl>]`. Tells its parent the port and a key,
 * then answers each message with the CPU time, in microseconds, that this process has used so far.
 */
import { createServer } from 'node:http'
import { targets } from './targets.mjs'

const [name, redisUrl] = process.argv.slice(2)
const { app, key } = await targets[name].create(redisUrl)

const server = createServer(app)
server.keepAliveTimeout = 0 // the connections wait, idle, while other targets have their turn
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port, key }))

process.on('message', () => {
  const { user, system } = process.cpuUsage()
  process.send({ cpuUs: user + system })
})
process.on('disconnect', () => process.exit())
