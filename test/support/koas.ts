import Koa3 from 'koa'
import Koa2 from 'koa2'

/** Both Koa versions that are supported, for `describe.each`. */
export const KOAS: readonly (readonly [string, typeof Koa3])[] = [
  ['Koa 3', Koa3],
  ['Koa 2', Koa2],
]
