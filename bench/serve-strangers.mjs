/**
 * What a stranger's body costs, in a process of its own: `serve-strangers.mjs <maxBodyBytes>`. Tells its parent the port of each
 * subject, then answers each message with the CPU time, in microseconds, that this process has used so far.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import express from 'express'
import Koa from 'koa'
import { createApiKeys, memoryRateLimiter, memoryStore } from '../dist/index.mjs'
import { apiKeyRouter as expressRouter } from '../dist/management/express.mjs'
import { apiKeyRouter as koaRouter } from '../dist/management/koa.mjs'

const maxBodyBytes = Number(process.argv[2])
const keys = createApiKeys({ store: memoryStore(), rateLimiter: memoryRateLimiter(), prefix: 'bench' })
const options = { actor: () => null, maxBodyBytes }
const problem = JSON.stringify({
  title: 'Authentication is required',
  status: 401,
  code: 'authentication_required',
})

/** Reads a body as Express does, and refuses whoever sent it. */
const jsonApp = () =>
  express().post('/api-keys', express.json({ limit: maxBodyBytes }), (_req, res) => {
    res.status(401).type('application/problem+json').send(problem)
  })

const apps = {
  json: jsonApp(),
  'json-again': jsonApp(),
  express: express().use('/api-keys', expressRouter(keys, options)),
  koa: new Koa().use(koaRouter(keys, options)).callback(),
}

const ports = {}
for (const [name, app] of Object.entries(apps)) {
  const server = createServer(app)
  server.keepAliveTimeout = 0 // the connections wait, idle, while other subjects have their turn
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  ports[name] = server.address().port
}
process.send(ports)

process.on('message', () => {
  const { user, system } = process.cpuUsage()
  process.send(user + system)
})
process.on('disconnect', () => process.exit())
