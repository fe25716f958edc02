import type { ExecutionContext } from '@nestjs/common'
import type { Request, RequestHandler, Response } from 'express'

/** Runs a middleware, and throws the error that it passes to `next`, if any. */
export function runMiddleware(middleware: RequestHandler, context: ExecutionContext): Promise<void> {
  const http = httpOf(context)
  return new Promise((resolve, reject) => {
    const next = (error?: unknown) => (error ? reject(error) : resolve())
    Promise.resolve(middleware(http.getRequest<Request>(), http.getResponse<Response>(), next)).catch(reject)
  })
}

/** @throws for WebSocket, microservice and GraphQL messages, which have no HTTP request to authenticate. */
export function httpOf(context: ExecutionContext): ReturnType<ExecutionContext['switchToHttp']> {
  const type = context.getType<string>()
  if (type !== 'http')
    throw new Error(`API keys and sessions are checked on HTTP routes only, not on "${type}"`)
  return context.switchToHttp()
}
