import 'reflect-metadata'
import { Controller, Get, Module } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import { ExpressAdapter } from '@nestjs/platform-express'
import { FastifyAdapter } from '@nestjs/platform-fastify'
import fastify from 'fastify'
import { createKeys, createLookalikeKey, oneLimit, routePath } from './targets.mjs'

/** The same route in every framework, bare and behind the door of that framework. `create…` gives an application for `node:http`. */

const hello = () => ({ hello: 'world' })
const rateLimits = oneLimit

export async function createFastifyBare() {
  const app = fastify()
  app.get(routePath, hello)
  return { app: await listenerOf(app), key: createLookalikeKey() }
}

export async function createFastify() {
  const { keys, key } = await createKeys({ rateLimits })
  const { apiKeyAuth } = await import('../dist/fastify.mjs')
  const app = fastify()
  app.addHook('onRequest', apiKeyAuth(keys))
  app.get(routePath, hello)
  return { app: await listenerOf(app), key }
}

async function listenerOf(app) {
  await app.ready()
  return (req, res) => app.routing(req, res)
}

export async function createNestBare(platform) {
  return { app: await nest(platform, []), key: createLookalikeKey() }
}

export async function createNest(platform) {
  const { keys, key } = await createKeys({ rateLimits })
  const { LatchkeyModule } = await import('../dist/nest.mjs')
  return { app: await nest(platform, [LatchkeyModule.forRoot({ keys })]), key }
}

/** Decorators are called by hand: this file is not compiled. */
async function nest(platform, imports) {
  class HelloController {
    hello() {
      return hello()
    }
  }
  Controller()(HelloController)
  const method = Object.getOwnPropertyDescriptor(HelloController.prototype, 'hello')
  Get(routePath)(HelloController.prototype, 'hello', method)
  class AppModule {}
  Module({ imports, controllers: [HelloController] })(AppModule)
  const adapter = platform === 'fastify' ? new FastifyAdapter() : new ExpressAdapter()
  const app = await NestFactory.create(AppModule, adapter, { logger: ['error'] })
  await app.init()
  const instance = app.getHttpAdapter().getInstance()
  return platform === 'fastify' ? listenerOf(instance) : instance
}

export async function createFetchBare() {
  return { app: overWebRequests(() => Response.json(hello())), key: createLookalikeKey() }
}

export async function createFetch() {
  const { keys, key } = await createKeys({ rateLimits })
  const { withApiKey } = await import('../dist/fetch.mjs')
  return { app: overWebRequests(withApiKey(keys, () => Response.json(hello()))), key }
}

function overWebRequests(handle) {
  return async (req, res) => {
    const request = new Request(`http://${req.headers.host}${req.url}`, { headers: req.headers })
    const response = await handle(request)
    const body = Buffer.from(await response.arrayBuffer())
    res.writeHead(response.status, { ...Object.fromEntries(response.headers), 'content-length': body.length })
    res.end(body)
  }
}
