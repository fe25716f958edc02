import { text } from 'node:stream/consumers'
import type { Context } from 'koa'

/** Reads a small JSON body; anything else is the client's fault. A form on another site cannot send JSON. */
export async function readJson(ctx: Context): Promise<Record<string, unknown>> {
  if (!ctx.is('json')) ctx.throw(415, 'Expected JSON')
  if (!(ctx.request.length <= 10_000)) ctx.throw(413, 'Expected a short body of a known length')
  try {
    return Object(JSON.parse(await text(ctx.req)))
  } catch {
    return ctx.throw(400, 'Expected JSON')
  }
}
