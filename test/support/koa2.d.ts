/** Koa 2 under its development alias; its types differ from those of Koa 3 in nothing that we use. */
declare module 'koa2' {
  import Koa from 'koa'

  export default Koa
}
