import 'reflect-metadata'
import type { RequestListener } from 'node:http'
import type { DynamicModule, INestApplication, LoggerService, Type } from '@nestjs/common'
import { NestFactory } from '@nestjs/core'
import type { NestExpressApplication } from '@nestjs/platform-express'
import { FastifyAdapter, type NestFastifyApplication } from '@nestjs/platform-fastify'
import type { Express } from 'express'
import { onTestFinished } from 'vitest'
import { type Ask, serve } from '../support/raw-http.ts'

/** What Nest runs on. */
export type Platform = 'Express' | 'Fastify'

export const PLATFORMS: readonly Platform[] = ['Express', 'Fastify']

export interface NestSettings {
  /** Takes what Nest logs as errors. */
  readonly logged?: string[]
  /** Whether a proxy is trusted. */
  readonly trustsProxy?: boolean
  /** Prepares the application before it starts. */
  readonly prepare?: (app: INestApplication) => void
}

/** Starts an application on a platform, and closes it after the test. */
export async function startNest(
  platform: Platform,
  module: Type | DynamicModule,
  { logged = [], trustsProxy = false, prepare }: NestSettings = {},
): Promise<INestApplication> {
  const logger: LoggerService = {
    log() {},
    warn() {},
    error: (error: unknown) => void logged.push(String(error)),
  }
  const options = { logger, abortOnError: false }
  const app =
    platform === 'Express'
      ? await NestFactory.create<NestExpressApplication>(module, options)
      : await NestFactory.create<NestFastifyApplication>(
          module,
          new FastifyAdapter({ trustProxy: trustsProxy }),
          options,
        )
  onTestFinished(() => app.close())
  if (platform === 'Express')
    (app as NestExpressApplication).disable('x-powered-by').set('trust proxy', trustsProxy)
  prepare?.(app)
  await app.init()
  return app
}

/** What answers requests of `node:http`. */
export async function listenerOf(app: INestApplication): Promise<RequestListener> {
  const server: unknown = app.getHttpAdapter().getInstance()
  if (typeof server === 'function') return server as Express
  const fastify = server as ReturnType<
    NestFastifyApplication['getHttpAdapter']
  >['getInstance'] extends () => infer T
    ? T
    : never
  await (fastify as { ready(): PromiseLike<unknown> }).ready()
  return (req, res) => (fastify as { routing(req: unknown, res: unknown): void }).routing(req, res)
}

export async function serveNest(
  platform: Platform,
  module: Type | DynamicModule,
  settings?: NestSettings,
): Promise<Ask> {
  return serve(await listenerOf(await startNest(platform, module, settings)))
}
